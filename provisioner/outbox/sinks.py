"""The sinks of a configuration. What only one of them needs is imported only where there is such a one."""

from provisioner.cloudevents import source_of
from provisioner.config import Config
from provisioner.outbox.feed import Ledger
from provisioner.outbox.outbox import Sink


def configured(config: Config, ledger: Ledger, version: str) -> list[Sink]:
    found: list[Sink] = []
    source = source_of(ledger.store.fleet, config.event_source)
    if config.mqtt.host:
        from provisioner.outbox.mqtt import MqttSink  # noqa: PLC0415

        found.append(MqttSink(ledger, config.mqtt, source, version))
    if config.webhook:
        from provisioner.outbox.webhook import WebhookSink  # noqa: PLC0415

        found += [WebhookSink(ledger, webhook, source, version) for webhook in config.webhook]
    return found
