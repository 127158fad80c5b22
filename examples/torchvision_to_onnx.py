# %% [markdown]
# # From a network of torchvision to a small ONNX file, through the service
#
# A ShuffleNet of `torchvision.models`, trained for a moment; the service compresses it; the ONNX
# file that comes back is run by onnxruntime, on the test images and on one picture from a file.
# Start the service first: `make serve`. Then `python -m examples.torchvision_to_onnx` runs every
# cell in order, in a few minutes on two cores; nothing is downloaded.

# %%
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn import functional as F

from atmc_client import Client
from atmc_core.networks.architectures import build

torch.manual_seed(0)
TRAIN, TEST, EPOCHS = 600, 120, 10
folder = Path(tempfile.mkdtemp(prefix="atmc-torchvision-"))

# %% [markdown]
# ## Images
# Scikit-learn's digits, enlarged to 32 by 32 and in colour, stand for your own: uint8
# `[N, height, width, 3]`. Any folder of PNG or JPEG by class would do as well.

# %%
digits = load_digits()
enlarged = [
    Image.fromarray((image * 15.9).astype(np.uint8)).resize((32, 32)).convert("RGB")
    for image in digits.images[: TRAIN + TEST]
]
images = np.stack([np.asarray(image) for image in enlarged])
labels = digits.target[: TRAIN + TEST]
train, test = slice(0, TRAIN), slice(TRAIN, None)
np.savez(
    folder / "images.npz",
    x_train=images[train],
    y_train=labels[train],
    x_test=images[test],
    y_test=labels[test],
)

# %% [markdown]
# ## A network
# The service knows torchvision's classifiers by name, with a head for as many classes as there
# are: `torchvision.models.shufflenet_v2_x0_5(num_classes=10)` is `torchvision/shufflenet_v2_x0_5`.
# A normalisation would be named to the service (`normalization`); here there is none.

# %%
NAME = "torchvision/shufflenet_v2_x0_5"
network = build(NAME, 10)
inputs = torch.tensor(images[train]).permute(0, 3, 1, 2) / 255
targets = torch.tensor(labels[train])
steps = EPOCHS * -(-TRAIN // 64)
optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
for _ in range(EPOCHS):
    for index in torch.split(torch.randperm(TRAIN), 64):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(inputs[index]), targets[index]))
        optimizer.step()
        schedule.step()
save_file(network.state_dict(), folder / "shufflenet.safetensors")

# %% [markdown]
# ## Compress
# A quarter of the weights in 4 bits. Epochs are few, so that this ends soon: leave `training` out
# for a network that you mean to use.

# %%
spec = {
    "method": "atmc",
    "target": {"density": 0.25, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 2 / 255, "steps": 1},
    "training": {"robust_epochs": 2, "compression_epochs": 4, "finish_epochs": 2},
    "evaluation": {"attacks": ["fgsm"], "curve_images": 10, "curve_steps": 1, "speed": False},
}
with Client() as client:
    job = client.submit(folder / "shufflenet.safetensors", NAME, folder / "images.npz", spec)
    done = client.wait(job["id"])
    client.download(done["id"], folder / "small")
assert done["headline"] is not None, done["error"]
reported = done["headline"]["clean_accuracy_after"]
before, after = (folder / name for name in ("shufflenet.safetensors", "small/model.atmc"))
print(f"{before.stat().st_size:,} bytes before, {after.stat().st_size:,} after")

# %% [markdown]
# ## Deploy
# `model.onnx` is the same network for any runtime: float `[N, 3, 32, 32]` in [0, 1] in, logits out.
# It needs neither torch nor the service.

# %%
session = onnxruntime.InferenceSession(str(folder / "small" / "model.onnx"))
(taken,) = session.get_inputs()
pixels = images[test].transpose(0, 3, 1, 2).astype(np.float32) / 255
(logits,) = session.run(None, {taken.name: pixels})
accuracy = (logits.argmax(1) == labels[test]).mean()
print(f"accuracy by onnxruntime {accuracy:.4f}, by the service's report {reported:.4f}")

# %% [markdown]
# One picture, from a file.

# %%
enlarged[TRAIN].save(folder / "picture.png")
picture = np.asarray(Image.open(folder / "picture.png").convert("RGB"), np.float32) / 255
(logits,) = session.run(None, {taken.name: picture.transpose(2, 0, 1)[np.newaxis]})
print(f"the picture shows {labels[TRAIN]}, the network says {logits.argmax()}")
print(f"all files are in {folder}")
