"""The sinks of a configuration. What only one of them needs is imported only where there is such a one."""

from collections.abc import Sequence

from provisioner.cloudevents import KINDS, source_of
from provisioner.config import Config, Webhook
from provisioner.errors import BedplateError
from provisioner.outbox.feed import Ledger
from provisioner.outbox.outbox import Sink


def configured(config: Config, ledger: Ledger, version: str) -> list[Sink]:
    found: list[Sink] = []
    source = source_of(ledger.store.fleet, config.event_source)
    if config.mqtt.host:
        from provisioner.bus import Broker  # noqa: PLC0415
        from provisioner.outbox.mqtt import MqttSink  # noqa: PLC0415

        broker = Broker(config.mqtt, config.mqtt.client_id or f"bedplate-{ledger.store.fleet}")
        found.append(MqttSink(ledger, broker, source, version))
    if config.webhook:
        from provisioner.outbox.webhook import WebhookSink  # noqa: PLC0415

        _check_kinds(config.webhook)
        found += [WebhookSink(ledger, webhook, source, version) for webhook in config.webhook]
    return found


def _check_kinds(webhooks: Sequence[Webhook]) -> None:
    """BedplateError where one would never get anything: a slip of the pen that nobody would notice until it counts."""
    for webhook in webhooks:
        for prefix in webhook.kinds:
            if not any(kind.startswith(prefix) for kind in KINDS):
                raise BedplateError(
                    f"cannot post to webhook {webhook.name!r}: no event's kind begins with {prefix!r}; "
                    "docs/events.md has a table of them"
                )
