"""What training a transformer would take, before anything is trained: weights, arithmetic, memory and days.

python -m apps.nlp plan --size base --devices 8 --teraflops 312                 a language model on 8 such devices
python -m apps.nlp plan --size tiny --measure                                   and how far to trust the figures here

All figures are counted from the configuration alone. Replicas are copies: each device holds all weights, gradients and
optimizer states, and only a step's sequences are divided among them. `--measure` trains the same network for some
steps and lays what was counted beside what was measured.
"""

from apps.nlp.plan.options import PlanOptions, parse
from apps.nlp.plan.report import run

__all__ = ["PlanOptions", "parse", "run"]
