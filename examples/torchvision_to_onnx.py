# %% [markdown]
# # A torchvision model, through the service, to an ONNX file that is deployed
#
# A ShuffleNet, trained on scikit-learn's digits, is sent to a running service, compressed, fetched
# as ONNX and run by onnxruntime, whose accuracy has to be the report's.
# `python -m examples.torchvision_to_onnx` runs every cell; the service is `ATMC_SERVER`, by default
# this machine's (`make serve`).

# %%
import os
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from atmc_client import Client
from atmc_core.networks.torchvision_import import torchvision_models

torch.manual_seed(0)
torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp(prefix="atmc-torchvision-"))
EPOCHS = int(os.environ.get("EPOCHS", "8"))

# %% [markdown]
# ## Data
# torchvision's networks take three channels, and ShuffleNet halves an image five times: each digit
# is drawn four times as large, in grey. uint8 `[N, H, W, C]`; the last images are for testing.

# %%
digits = load_digits()
pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
images = np.repeat(pixels.repeat(4, 1).repeat(4, 2)[..., None], 3, axis=-1)
labels = digits.target.astype(np.int64)
train, test = slice(0, 600), slice(-150, None)
np.savez_compressed(
    folder / "digits.npz",
    x_train=images[train],
    y_train=labels[train],
    x_test=images[test],
    y_test=labels[test],
)

# %% [markdown]
# ## The network
# `torchvision_models()` is `torchvision.models`, also beside a torch of another build. With
# `weights="DEFAULT"` and another last layer it starts from ImageNet's weights. Images are float
# `[N, 3, H, W]` in [0, 1]; whoever normalises them tells the service how (`normalization`).

# %%
network = torchvision_models().shufflenet_v2_x0_5(num_classes=10)
x = torch.tensor(images[train]).permute(0, 3, 1, 2).float() / 255
y = torch.tensor(labels[train])
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
for _epoch in range(EPOCHS):
    for index in torch.randperm(len(y)).split(32):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x[index]), y[index]).backward()
        optimizer.step()
save_file(network.state_dict(), folder / "shufflenet.safetensors")

# %% [markdown]
# ## Compress
# A fifth of the weights, 8 bits each. The epochs are few, so that this is over soon; leave
# `training` out for a result.

# %%
spec = {
    "method": "atmc",
    "target": {"density": 0.2, "bits": 8},
    "threat": {"norm": "linf", "epsilon": "2/255", "steps": 2},
    "training": {"robust_epochs": 1, "compression_epochs": 2, "finish_epochs": 1},
    "evaluation": {"attacks": ["fgsm"], "curve_images": 10, "curve_steps": 2},
}
with Client() as client:
    job = client.submit(
        folder / "shufflenet.safetensors",
        "torchvision/shufflenet_v2_x0_5",
        folder / "digits.npz",
        spec,
        name="torchvision to onnx",
    )
    print(f"{job['id']} at {client.url}")
    job = client.wait(job["id"])
    if job["state"] != "succeeded":
        raise SystemExit(f"{job['id']} {job['state']}: {job['error']}")
    client.download(job["id"], folder, ["model.onnx", "report.json"])
    report = client.report(job["id"])

# %% [markdown]
# ## Deploy
# The file takes images in [0, 1]; nothing but onnxruntime is needed from here on.

# %%
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
batch = images[test].transpose(0, 3, 1, 2).astype(np.float32) / 255
(logits,) = session.run(None, {session.get_inputs()[0].name: batch})
accuracy = float((logits.argmax(1) == labels[test]).mean())
reported = report["after"]["clean"]["accuracy"]
print(f"onnxruntime: {accuracy:.4f}, the report: {reported:.4f}, over {len(batch)} images")
if abs(accuracy - reported) > 1.5 / len(batch):
    raise SystemExit("the deployed network is not the one that was reported")
print(f"deploy {folder / 'model.onnx'}")
