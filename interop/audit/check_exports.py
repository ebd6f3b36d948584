"""What an export sent, judged by others: events against OCSF's schema, OTLP by its own messages.

Usage: check_exports.py FOLDER, with `ocsf.jsonl` and `otlp.jsonl` in it.
"""

import json
import sys
from pathlib import Path

import jsonschema
from google.protobuf import json_format
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

folder = Path(sys.argv[1])


def lines(name):
    found = [json.loads(line) for line in (folder / name).read_text().splitlines() if line]
    assert found, f"{name} is empty"
    return found


def check_ocsf():
    events = lines("ocsf.jsonl")
    version = events[0]["metadata"]["version"]
    schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(version))
    validators = {}
    for event in events:
        uid = event["class_uid"]
        if uid not in validators:
            schema = schemas.get_class_schema(schemas.lookup_class_name_from_uid(uid))
            validators[uid] = jsonschema.Draft202012Validator(schema)
        errors = [f"{list(e.path)}: {e.message[:200]}" for e in validators[uid].iter_errors(event)]
        assert not errors, (event, errors)
        # A validator that takes everything would say yes as well.
        for name in ("time", "class_uid", "metadata"):
            without = {key: value for key, value in event.items() if key != name}
            assert not validators[uid].is_valid(without), f"{name} is not missed"
    kinds = {event["class_uid"] for event in events}
    statuses = {event["status_id"] for event in events}
    assert {3002, 3004} <= kinds and {1, 2} <= statuses, (kinds, statuses)
    print(f"{len(events)} events agree with OCSF {version}")


def check_otlp():
    records = 0
    for request in lines("otlp.jsonl"):
        # Unknown members and wrong types are errors.
        message = json_format.Parse(json.dumps(request), ExportLogsServiceRequest())
        for resource in message.resource_logs:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            assert names["service.name"] == "chancery", names
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    assert record.time_unix_nano > 1_700_000_000 * 10**9
                    assert record.event_name.startswith("chancery.token.")
                    assert record.attributes[0].key == "chancery.address_in_log"
                    assert record.body.string_value and record.severity_number
                    records += 1
    assert records, "no log record"
    print(f"{records} log records are OTLP")


check_ocsf()
check_otlp()
