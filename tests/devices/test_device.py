from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devices import Device, Ssh, device_names, get_device, load_device
from ofa.errors import DeviceError


@pytest.mark.parametrize("name", device_names())
def test_every_device_of_the_catalog_is_valid_and_described(name: str) -> None:
    device = get_device(name)
    assert device.name == name
    assert device.description.endswith(".")
    assert Device.from_json(device.to_json()) == device


def test_the_catalog_has_the_devices_of_the_first_road() -> None:
    assert {"local-cpu", "local-cpu-2threads", "fake"} <= set(device_names())
    assert get_device("local-cpu").threads == 1
    assert get_device("local-cpu").option("spinning") is False


def test_equal_settings_are_equal_values() -> None:
    written = Device(name="a", runtime="onnxruntime", options=(("spinning", False),))
    default = Device(name="a", runtime="onnxruntime")
    assert written == default
    assert hash(written) == hash(default)


def test_a_pause_may_be_written_without_its_point() -> None:
    whole: Any = 20
    assert Device(name="a", runtime="fake", pause_ms=whole) == Device(name="a", runtime="fake", pause_ms=20.0)
    assert get_device("local-cpu").pause_ms == 0.0


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_earlier_files_with_a_table_for_ssh_are_read(tmp_path: Path) -> None:
    head = 'name = "x"\nruntime = "fake"\n'
    earlier = load_device(write(tmp_path / "earlier.toml", head + 'transport = "ssh"\n[ssh]\nhost = "a"\nport = 22\n'))
    now = load_device(write(tmp_path / "now.toml", head + '[transport]\nkind = "ssh"\nhost = "a"\nport = 22\n'))
    assert earlier == now == Device(name="x", runtime="fake", address=Ssh(host="a", port=22))
    in_tables = {**Device(name="x", runtime="fake").to_json(), "transport": "local", "ssh": None}
    assert Device.from_json(in_tables) == Device(name="x", runtime="fake")


def test_users_folders_come_before_the_catalog(tmp_path: Path) -> None:
    write(tmp_path / "local-cpu.toml", 'name = "local-cpu"\nruntime = "fake"\n')
    write(tmp_path / "mine.toml", 'name = "mine"\nruntime = "fake"\n[options]\nnoise = 0.1\n')
    assert "mine" in device_names([tmp_path])
    assert get_device("mine", [tmp_path]).option("noise") == 0.1
    assert get_device("local-cpu", [tmp_path]).runtime == "fake"
    assert get_device("local-cpu").runtime == "onnxruntime"
    assert get_device(tmp_path / "mine.toml") == get_device("mine", [tmp_path])


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(DeviceError, match="did you mean 'local-cpu'"):
        get_device("lokal-cpu")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('runtime = "fake"', "has no key 'name'"),
        ('name = "x"', "has no key 'runtime'"),
        ('name = "x"\nruntime = "fake"\nthread = 2', "did you mean 'threads'"),
        ('name = "x"\nruntime = "tensorflow"', "'runtime' of device 'x' must be a known one, but is 'tensorflow'"),
        ('name = "x"\nruntime = "onnxruntime"\n[options]\nspining = true', "did you mean 'spinning'"),
        ('name = "x"\nruntime = "onnxruntime"\n[options]\nspinning = 1', "must be true or false, but is 1"),
        ('name = "x"\nruntime = "onnxruntime"\noptions = 3', "must be a table"),
        ('name = "x"\nruntime = "fake"\nthreads = 0', "within 1 and 1024, but is 0"),
        ('name = "x"\nruntime = "fake"\nbatch = true', "a whole number, but is True"),
        ('name = "x"\nruntime = "fake"\nprecision = "fp23"', "did you mean 'fp32'"),
        ('name = "x"\nruntime = "pytorch"\nprecision = "int8"', "name a runtime that has it: fake, onnxruntime, openvino"),
        ('name = "x"\nruntime = "fake"\ntransport = "locale"', "did you mean 'local'"),
        ('name = "x"\nruntime = "fake"\nstatus = "maybe"', "known: measured, template"),
        ('name = "x"\nruntime = "fake"\ntransport = "ssh"', "must name its host, but has no key 'host'; add a line"),
        ('name = "x"\nruntime = "fake"\n[ssh]\nhost = "a"', 'must be a table beside transport = "ssh", but is'),
        ('name = "x"\nruntime = "fake"\ntransport = "ssh"\n[ssh]\nuser = "a"', "must name its host"),
        ('name = "x"\nruntime = "fake"\n[transport]\nhost = "a"', "must name its kind"),
        ('name = "x"\nruntime = "fake"\n[transport]\nkind = "shh"', "did you mean 'ssh'"),
        ('name = "x"\nruntime = "fake"\n[transport]\nkind = "ssh"\nhost = 3', "a text, but is 3"),
        ('name = "x"\nruntime = "fake"\n[transport]\nkind = "local"\nhost = "a"', "known: backoff_s, retries"),
        ('name = "x"\nruntime = "fake"\ntransport = 3', "must be a name or a table, but is 3"),
        ('name = "x"\nruntime = "fake"\ntransport = "ssh"\n[ssh]\nhost = "a"\nprot = 1', "did you mean 'port'"),
        ('name = "x"\nruntime = "fake"\nssh = "a"', "must be a table beside transport = \"ssh\", but is 'a'"),
        ('name = "x"\nruntime = "fake"\nclocks = "fast"', "known: fixed, governed, shared, unknown"),
        ('name = "x"\nruntime = "fake"\npin = 1', "true or false, but is 1"),
        ('name = "x"\nruntime = "fake"\npause_ms = -1', "within 0 and 60000, but is -1"),
        ('name = "x"\nruntime = "fake"\npause_ms = nan', "within 0 and 60000, but is nan"),
        ('name = "x"\nruntime = "fake"\npause_ms = true', "a number with a decimal point, but is True"),
        ('name = "x"\nruntime = "fake"\npause = 20', "did you mean 'pause_ms'"),
        ('name = "x"\nruntime = "fake"\nopset = 99', "within 11 and 21, but is 99"),
        ('name = "../x"\nruntime = "fake"', "letters, digits"),
        ("name = ", "must be TOML"),
        ("name = 3\nruntime = 'fake'", "a text, but is 3"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_value_and_remedy(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DeviceError) as caught:
        load_device(write(tmp_path / "x.toml", text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_binary_or_misnamed(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no such file"):
        get_device(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DeviceError, match="must be text in UTF-8"):
        get_device(tmp_path / "binary.toml")
    write(tmp_path / "a.toml", 'name = "b"\nruntime = "fake"')
    with pytest.raises(DeviceError, match="holds 'b'"):
        get_device("a", [tmp_path])
    with pytest.raises(DeviceError, match="folder of devices must exist"):
        device_names([tmp_path / "nowhere"])


def test_a_device_checks_itself() -> None:
    wrong: Any = "2"
    with pytest.raises(DeviceError, match="'threads' of device 'x' must be a whole number, but is '2'"):
        Device(name="x", runtime="fake", threads=wrong)
