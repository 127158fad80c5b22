"""ATMC in PyTorch: networks made small that still withstand adversarial attacks.

    from atmc_core import Compressor, PGD, adversarial_loss, evaluate, load

    compressor = Compressor(network, density=0.1, bits=4, steps=30 * len(loader))
    for images, labels in thirty_epochs(loader):
        adversarial_loss(network, images, labels, PGD("linf", 8 / 255)).backward()
        compressor.step()
    compressor.freeze()  # the end game: both constraints hold exactly from here on
    for images, labels in loader:
        adversarial_loss(network, images, labels, PGD("linf", 8 / 255)).backward()
        compressor.step()
    compressor.save("small.atmc")
    network = load("small.atmc", network=Mine())
    evaluate(network, images, labels, attacks=["autoattack"], epsilons=[4 / 255, 8 / 255])

These names are all that is promised; the rooms behind them (docs/index.md) may change. A name is
imported when it is first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
