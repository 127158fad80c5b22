"""The client whose calls wait for their answers; `atmc_client.aio` has the one for event loops."""

from atmc_client.sync.calls import DEFAULT_SERVER, FINAL_STATES, Document
from atmc_client.sync.client import Client

__all__ = ["DEFAULT_SERVER", "FINAL_STATES", "Client", "Document"]
