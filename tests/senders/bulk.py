"""Elasticsearch's own client and a Loki handler for Python's logging, as shippers use them."""
import logging
import sys

import logging_loki
from elasticsearch import Elasticsearch
from elasticsearch.helpers import bulk

elastic, loki = sys.argv[1:]
client = Elasticsearch(elastic)
assert client.info()["tagline"] == "You Know, for Search"
documents = [
    {
        "_op_type": "create",
        "_index": "logs-app",
        "message": f"order {number} shipped",
        "log": {"level": "warn"},
        "host": {"name": "es-host"},
        "order": {"total": number * 1.5},
    }
    for number in range(50)
]
print(bulk(client, documents))

logger = logging.getLogger("billing")
handler = logging_loki.LokiHandler(url=f"{loki}/loki/api/v1/push", tags={"job": "billing"}, version="1")
failures = []
handler.handleError = lambda record: failures.append(sys.exc_info())
logger.addHandler(handler)
logger.error("invoice lost", extra={"tags": {"customer": "c7"}})
assert not failures, failures
