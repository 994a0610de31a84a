"""OpenTelemetry receivers on the messages and stubs of PyPI's opentelemetry-proto: http.server for OTLP/HTTP, grpcio for OTLP/gRPC."""

import concurrent.futures
import gzip
import http.server
import threading

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


def value(any_value):
    """What an AnyValue holds."""
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    found = {pair.key: value(pair.value) for pair in pairs}
    assert len(found) == len(pairs)
    return found


class Received:
    """All that came, in order, each with its resource's attributes."""

    def __init__(self):
        self.lock = threading.Lock()
        self.spans, self.logs, self.metrics, self.resources, self.headers = [], [], {}, [], []

    def take(self, request, headers):
        """One export request of any signal; the response to it."""
        with self.lock:
            self.headers.append({name.lower(): text for name, text in headers})
            if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
                for group in self._groups(request.resource_spans):
                    self.spans += [span for scope in group.scope_spans for span in scope.spans]
                return trace_service_pb2.ExportTraceServiceResponse()
            if isinstance(request, logs_service_pb2.ExportLogsServiceRequest):
                for group in self._groups(request.resource_logs):
                    self.logs += [log for scope in group.scope_logs for log in scope.log_records]
                return logs_service_pb2.ExportLogsServiceResponse()
            for group in self._groups(request.resource_metrics):
                self.metrics |= {metric.name: metric for scope in group.scope_metrics for metric in scope.metrics}
            return metrics_service_pb2.ExportMetricsServiceResponse()

    def _groups(self, groups):
        self.resources += [attributes(group.resource.attributes) for group in groups]
        return groups


class HttpReceiver(Received):
    """OTLP/HTTP with binary Protobuf on a port of its own."""

    protocol = "http/protobuf"
    requests = {
        "/v1/traces": trace_service_pb2.ExportTraceServiceRequest,
        "/v1/logs": logs_service_pb2.ExportLogsServiceRequest,
        "/v1/metrics": metrics_service_pb2.ExportMetricsServiceRequest,
    }

    def __init__(self):
        super().__init__()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/x-protobuf"
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                message = receiver.requests[self.path].FromString(body)
                answer = receiver.take(message, self.headers.items()).SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class GrpcReceiver(Received):
    """OTLP/gRPC on a port of its own, by the generated services."""

    protocol = "grpc"

    def __init__(self):
        super().__init__()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        receiver = self

        class Service:
            def Export(self, request, context):
                return receiver.take(request, context.invocation_metadata())

        for add in (
            trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
            logs_service_pb2_grpc.add_LogsServiceServicer_to_server,
            metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
        ):
            add(Service(), self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def stop(self):
        self.server.stop(None).wait(10)
