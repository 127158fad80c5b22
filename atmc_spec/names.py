"""The choices of a caller in fields that have a fixed set; methods are named as in the paper."""

from typing import Final, Literal

Bits = Literal[1, 2, 3, 4, 5, 6, 7, 8, 16, 32]
#: With up to so many bits a tensor has a codebook of 2^bits values; with more each non-zero has its
#: own value.
MAX_CODEBOOK_BITS = 8
#: The bits of a weight that is not quantised, and of one value of a codebook.
FLOAT_BITS: Final = 32
#: The bits of a value of a bias, a norm or a codebook.
SmallTensorBits = Literal[8, 16, 32]
Norm = Literal["linf", "l2"]
Backward = Literal["smooth", "plain"]
MethodName = Literal["nap", "da", "ap", "al0", "alr", "atmc", "evaluate"]
AttackName = Literal[
    "fgsm",
    "pgd",
    "pgd_cw",
    "pgd_dlr",
    "wrm",
    "autoattack",
    "apgd_ce",
    "apgd_t",
    "fab_t",
    "square",
    "pgd_smooth",
]
Level = Literal["quick", "standard", "full"]
EvaluatedSplit = Literal["test", "validation"]
Certify = Literal["none", "ibp", "crown"]
StructureName = Literal["element", "channel"]
Preset = Literal["fast", "standard", "paper", "auto"]
LossName = Literal["mix", "trades", "ibp"]
Optimizer = Literal["sgd", "adam"]
ScheduleName = Literal["cosine", "step"]
Averaging = Literal["none", "ema", "swa"]
DensitySchedule = Literal["cubic", "linear", "none"]
Importance = Literal["lamp", "magnitude"]
Precision = Literal["auto", "float32", "bfloat16"]
