"""The client without an event loop, written from `atmc_client.aio`: edit that one."""
