"""How often a tenant asks, counted in the broker: by all API processes together."""

import logging
import time
from dataclasses import dataclass

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)

WINDOW_S = 60
_TIMEOUT_S = 0.5
_LEFT_ALONE_S = 10.0
# Every request waits for this, so it is one command and not a transaction of three.
_COUNT = f"""
local asked = redis.call('INCR', KEYS[1])
if asked == 1 then redis.call('EXPIRE', KEYS[1], {WINDOW_S}) end
return {{asked, redis.call('TTL', KEYS[1])}}
"""


@dataclass(frozen=True)
class Rate:
    """Where a tenant stands: requests `asked` of `limit` in a window that ends in `reset_s`."""

    limit: int
    asked: int
    reset_s: int

    @property
    def remaining(self) -> int:
        """The number of requests that are still answered in this window."""
        return max(0, self.limit - self.asked)

    @property
    def exceeded(self) -> bool:
        """Whether this request is one too many."""
        return self.asked > self.limit


class RateCounter:
    """Counts requests in windows of a minute, each beginning with a tenant's first request."""

    def __init__(self, broker_url: str) -> None:
        self._redis = Redis.from_url(
            broker_url,
            socket_connect_timeout=_TIMEOUT_S,
            socket_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._count = self._redis.register_script(_COUNT)
        self._away_until = 0.0

    def count(self, tenant: str, limit: int) -> Rate | None:
        """Count one request; None while the broker is away, when nobody is held back.

        Jobs are taken in without a broker, too; one that is away is asked again after seconds only,
        so that it does not slow every request.
        """
        if time.monotonic() < self._away_until:
            return None
        key = f"atmc:requests:{tenant}"
        try:
            asked, left = self._count(keys=[key])
        except RedisError as error:
            self._away_until = time.monotonic() + _LEFT_ALONE_S
            log.warning("requests are not counted, the broker is away: %s", error)
            return None
        return Rate(limit, int(asked), max(1, int(left)))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
