"""The calls on webhooks, which tell a receiver what happens; `verify_webhook` is for that one."""

from collections.abc import Sequence

from atmc_client.aio.calls import Body, Calls
from atmc_client.types.answers import Delivery, DeliveryWithAttempts, Webhook, WebhookWithSecret


class Webhooks(Calls):
    """The calls on webhooks."""

    async def create_webhook(
        self, url: str, *, events: Sequence[str] | None = None
    ) -> WebhookWithSecret:
        """Have the service tell a URL what happens to the tenant's jobs and sweeps.

        A webhook of one job alone is the `webhook` of `submit`.

        Args:
            url: https or http, of a host that the service may call.
            events: the types of messages, such as `job.succeeded`; by default the ends of jobs.

        Returns:
            The webhook. Its `secret`, by which `verify_webhook` knows messages, is shown only here.

        Raises:
            InvalidRequest: the service does not call such a URL, or an event is none.
        """
        new: Body = {"url": url} | ({} if events is None else {"events": list(events)})
        made: WebhookWithSecret = await self._transport.post("/webhooks", lambda: {"json": new})
        return made

    async def webhooks(self) -> list[Webhook]:
        """The webhooks, but those of single jobs."""
        return await self._all("/webhooks")

    async def get_webhook(self, webhook_id: str) -> Webhook:
        """The webhook.

        Args:
            webhook_id: which.

        Raises:
            NotFound: there is no such webhook.
        """
        webhook: Webhook = await self._get(f"/webhooks/{webhook_id}")
        return webhook

    async def change_webhook(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        active: bool | None = None,
    ) -> Webhook:
        """Change what is given of the webhook; returns it.

        Args:
            webhook_id: which.
            url: where to.
            events: the types of messages.
            active: True switches one on again that was switched off after failing for long.

        Raises:
            InvalidRequest: as for `create_webhook`; `active` can only be True.
            NotFound: there is none.
        """
        given = {"url": url, "events": events and list(events), "active": active}
        changes = {name: value for name, value in given.items() if value is not None}
        webhook: Webhook = await self._transport.patch(f"/webhooks/{webhook_id}", changes)
        return webhook

    async def rotate_webhook_secret(self, webhook_id: str) -> WebhookWithSecret:
        """Give the webhook a new secret, which signs from the next try on.

        Have the receiver take both meanwhile: `verify_webhook` takes several.

        Args:
            webhook_id: which.

        Returns:
            The webhook with the new `secret`, which is shown only here.

        Raises:
            NotFound: there is no such webhook.
        """
        path = f"/webhooks/{webhook_id}/rotate-secret"
        webhook: WebhookWithSecret = await self._transport.post(path)
        return webhook

    async def delete_webhook(self, webhook_id: str) -> None:
        """Delete the webhook: its URL is told nothing more.

        Args:
            webhook_id: which.

        Raises:
            NotFound: there is no such webhook.
        """
        await self._transport.delete(f"/webhooks/{webhook_id}")

    async def deliveries(self, webhook_id: str, *, limit: int = 20) -> list[Delivery]:
        """The newest messages of the webhook, and whether they arrived.

        Args:
            webhook_id: which.
            limit: at most so many.

        Raises:
            NotFound: there is no such webhook.
        """
        return await self._list(f"/webhooks/{webhook_id}/deliveries", limit)

    async def get_delivery(self, webhook_id: str, delivery_id: str) -> DeliveryWithAttempts:
        """A message with every try to deliver it, in `log`.

        Args:
            webhook_id: whose.
            delivery_id: which.

        Raises:
            NotFound: there is no such message.
        """
        path = f"/webhooks/{webhook_id}/deliveries/{delivery_id}"
        delivery: DeliveryWithAttempts = await self._get(path)
        return delivery

    async def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a message once more.

        Args:
            webhook_id: whose.
            delivery_id: which.

        Returns:
            The delivery, waiting.

        Raises:
            Conflict: the webhook is switched off.
            NotFound: there is no such message.
        """
        path = f"/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"
        delivery: Delivery = await self._transport.post(path)
        return delivery
