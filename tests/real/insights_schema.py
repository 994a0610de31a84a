"""What Application Insights' ingestion takes: the envelope, three kinds of data (schema version 2), and their limits.

From Azure's data model documentation and the models of its own exporter (`insights_reference.py models` prints those).
"""

import dataclasses
import datetime
import re

ITEM_BYTES = 64 * 1024
PROPERTY_NAME, PROPERTY = 150, 8192
ENVELOPES = {
    "RequestData": "Microsoft.ApplicationInsights.Request",
    "MetricData": "Microsoft.ApplicationInsights.Metric",
    "EventData": "Microsoft.ApplicationInsights.Event",
}
DURATION = re.compile(r"\d{1,3}\.[0-2]\d:[0-5]\d:[0-5]\d\.\d{3,7}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TAGS = {
    "ai.operation.id": re.compile(r"[0-9a-f]{32}"),
    "ai.operation.parentId": re.compile(r"[0-9a-f]{16}"),
    "ai.internal.sdkVersion": re.compile(r"\S{1,64}"),
}
REQUIRED_TAGS = {"ai.cloud.role", "ai.cloud.roleInstance", "ai.internal.sdkVersion"}


@dataclasses.dataclass(frozen=True)
class Field:
    """One field: its JSON type, whether it must be there, and of texts the most characters or the form."""

    kind: type
    required: bool = False
    most: int = 1024
    form: re.Pattern | None = None

    def faults(self, name, value):
        if self.kind is float:
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
        else:
            good = type(value) is self.kind
        if not good:
            return [f"{name} is {value!r}, no {self.kind.__name__}"]
        if self.kind is str and len(value) > self.most:
            return [f"{name} has {len(value)} characters of {self.most}"]
        if self.form and not self.form.fullmatch(value):
            return [f"{name} is {value!r}"]
        return []


ENVELOPE = {
    "ver": Field(int), "name": Field(str, required=True), "time": Field(str, required=True),
    "sampleRate": Field(float), "seq": Field(str, most=64), "iKey": Field(str, required=True, form=UUID),
    "tags": Field(dict, required=True), "data": Field(dict, required=True),
}  # fmt: skip
BASE = {"ver": Field(int, required=True), "properties": Field(dict)}
DATA = {
    "RequestData": BASE | {
        "id": Field(str, required=True, most=128), "name": Field(str), "source": Field(str),
        "duration": Field(str, required=True, form=DURATION), "success": Field(bool, required=True),
        "responseCode": Field(str, required=True), "url": Field(str, most=2048), "measurements": Field(dict),
    },
    "MetricData": BASE | {"metrics": Field(list, required=True)},
    "EventData": BASE | {"name": Field(str, required=True, most=512), "measurements": Field(dict)},
}  # fmt: skip
POINT = {
    "ns": Field(str, most=256), "name": Field(str, required=True), "kind": Field(str), "count": Field(int),
    "value": Field(float, required=True),
    "min": Field(float), "max": Field(float), "stdDev": Field(float),
}  # fmt: skip


def faults(item):
    """All that is wrong with one item; nothing: ingestion would take it."""
    found = fields("envelope", ENVELOPE, item)
    if found:
        return found
    if item.get("ver", 1) != 1:
        found.append(f"envelope version {item['ver']}")
    found += time_faults(item["time"]) + tag_faults(item["tags"])
    kind = item["data"].get("baseType")
    if kind not in DATA:
        return [*found, f"baseType {kind!r}"]
    if ENVELOPES[kind] != item["name"]:
        found.append(f"{kind} in an envelope named {item['name']}")
    data = item["data"].get("baseData", {})
    return found + fields(kind, DATA[kind], data) + content(data)


def fields(where, known, found):
    """Fields that are missing, unknown or of another type."""
    wrong = [f"{where} has no {name}" for name, field in known.items() if field.required and name not in found]
    for name, value in found.items():
        wrong += known[name].faults(f"{where}.{name}", value) if name in known else [f"{where} has {name}"]
    return wrong


def content(data):
    found = [] if data.get("ver") == 2 else [f"data version {data.get('ver')!r}"]
    for name, value in data.get("properties", {}).items():
        if not isinstance(value, str) or len(value) > PROPERTY or not 0 < len(name) <= PROPERTY_NAME:
            found.append(f"property {name} is {value!r:.100}")
    for name, value in data.get("measurements", {}).items():
        found += Field(float).faults(f"measurement {name}", value)
    # Ingestion looks at the first one only.
    points = data.get("metrics", [{"name": "", "value": 0}])
    return found + (fields("metric", POINT, points[0]) if len(points) == 1 else [f"{len(points)} metrics in one item"])


def time_faults(text):
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return [f"time is {text!r}"]
    return [] if text.endswith("Z") and time.utcoffset() == datetime.timedelta() else [f"time is {text!r}, not UTC with Z"]


def tag_faults(tags):
    found = [f"no tag {name}" for name in sorted(REQUIRED_TAGS - tags.keys())]
    for name, value in tags.items():
        if not isinstance(value, str) or not name.startswith("ai."):
            found.append(f"tag {name} is {value!r}")
        elif name in TAGS and not TAGS[name].fullmatch(value):
            found.append(f"tag {name} is {value!r}")
    return found
