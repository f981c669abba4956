"""The boundary to the AMQP client: consume, settle, publish with confirm. Only here is aio-pika named.

Everything above speaks `Delivery`, `Properties` and the classes named here; another client library
would be another version of this folder.
"""

import logging

from worker.broker.channels import Browser, Consumer
from worker.broker.connection import Closed, Connection
from worker.broker.declaring import declare
from worker.broker.delivery import Delivery
from worker.broker.errors import (
    BrokerError,
    BrokerRefusal,
    BrokerRefused,
    PublishRefused,
    PublishUncertain,
    TopologyMismatch,
)
from worker.broker.properties import Properties
from worker.broker.publish_channel import PublishChannel

__all__ = [
    "BrokerError",
    "BrokerRefusal",
    "BrokerRefused",
    "Browser",
    "Closed",
    "Connection",
    "Consumer",
    "Delivery",
    "Properties",
    "PublishChannel",
    "PublishRefused",
    "PublishUncertain",
    "TopologyMismatch",
    "declare",
]

# The client logs each lost connection with a traceback; our own parts log it in one line.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)
