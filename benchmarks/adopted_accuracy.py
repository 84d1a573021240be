"""What networks of an adopted model are worth, beside pruning by Torch-Pruning and beside training them alone.

A model in plain PyTorch is trained, adopted, and its supernet trained for a fifth of the epochs by the recipe ``adopt``. A latency table of
this machine and a predictor lead to the networks for 75, 50 and 30 % of the model's latency. Each is judged straight from the supernet, and
after fine-tuning. Beside them: the model pruned by Torch-Pruning to no less latency and trained on with the same teacher for as many epochs
as all three networks had together, a third each; and the network trained alone, from nothing, for as many epochs as the model.

    pip install torch-pruning==1.6.1
    python benchmarks/adopted_accuracy.py --model resnet20 --train train.parquet --test test.parquet --work WORK
    python benchmarks/adopted_accuracy.py --work WORK --out benchmarks/results/adopted_accuracy_resnet20.json

The work is cut into tasks whose results lie in a folder: several processes can share it and a stopped one goes on. Latencies are measured
in turns, on a machine with nothing else to do: ``--only networks`` and ``--only pruned`` say so.
"""

from __future__ import annotations
