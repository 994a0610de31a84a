"""An OpenAI-style server that streams, called by the real `openai` package and by curl through the gateway."""

import http.server
import json
import subprocess
import threading

import openai
import pytest

from traffic import MARK, TrafficGateway

SETTINGS = """
profile: openai
deployments: [ {{ name: blue, traffic: 100, replicas: ["http://127.0.0.1:{port}"] }} ]
"""
SECONDS = 20
MODEL = "tiny-llm-2"
WORDS = ["Iris", " ", "virginica", "."]
USAGE = {"prompt_tokens": 11, "completion_tokens": len(WORDS), "total_tokens": 11 + len(WORDS)}
MESSAGES = [{"role": "user", "content": "Which flower?"}]


class Model(http.server.BaseHTTPRequestHandler):
    """Answers as vLLM does. After its first word a stream waits until `more` is set."""

    protocol_version = "HTTP/1.1"
    more = threading.Event()
    seen = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.seen.append((self.path, dict(self.headers)))
        self.reply({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "test"}]})

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, dict(self.headers)))
        if order.get("stream"):
            return self.stream(order)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "".join(WORDS)}}
        return self.reply({**self.head("chat.completion"), "choices": [choice], "usage": USAGE})

    def stream(self, order):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, word in enumerate(WORDS):
            if number == 1:
                self.more.wait(SECONDS)
            self.event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if order.get("stream_options", {}).get("include_usage"):
            self.event({"choices": [], "usage": USAGE})
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, fields):
        self.chunk(f"data: {json.dumps({**self.head('chat.completion.chunk'), **fields})}\n\n".encode())

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def head(self, kind):
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": MODEL}

    def reply(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def gate(tmp_path_factory, certs):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    services = {"llm": SETTINGS.format(port=server.server_address[1])}
    gateway = TrafficGateway(tmp_path_factory.mktemp("gateway"), certs, services)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.kill()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def client(gate, mark):
    def client(key=None):
        return openai.OpenAI(
            base_url=gate.service("llm", "v1"), api_key=key or gate.primary, max_retries=0, timeout=SECONDS,
            default_headers={MARK: mark}, http_client=openai.DefaultHttpxClient(verify=gate.trust(), trust_env=False),
        )  # fmt: skip

    return client


@pytest.fixture(autouse=True)
def all_words():
    """A stream does not wait, but in the test that is about that."""
    Model.more.set()


def has_usage(record):
    return (record["Model"], record["PromptTokens"], record["CompletionTokens"]) == (
        MODEL, USAGE["prompt_tokens"], USAGE["completion_tokens"])  # fmt: skip


def test_a_completion(gate, client, mark):
    answer = client().chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.content == "".join(WORDS)
    path, headers = Model.seen[-1]
    assert path == "/v1/chat/completions" and "Authorization" not in headers
    assert has_usage(gate.marked(mark))


def test_a_stream_passes_word_by_word(gate, client, mark):
    """The first word is here while the server still holds back the second."""
    Model.more.clear()
    stream = client().chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = iter(stream)
    first = next(chunks)
    assert first.choices[0].delta.content == WORDS[0]
    assert not Model.more.is_set()
    Model.more.set()
    rest = list(chunks)
    words = [chunk.choices[0].delta.content for chunk in rest if chunk.choices and chunk.choices[0].delta.content]
    assert words == WORDS[1:]
    assert rest[-1].usage.model_dump(include=USAGE.keys()) == USAGE
    record = gate.marked(mark)
    assert has_usage(record)
    assert (record["StatusCode"], record["Reason"]) == (200, "ok")


def test_a_stream_without_usage_still_names_its_model(gate, client, mark):
    stream = client().chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    assert [chunk.usage for chunk in stream] == [None] * (len(WORDS) + 1)
    record = gate.marked(mark)
    assert record["Model"] == MODEL
    assert not {"PromptTokens", "CompletionTokens"} & {name for name, value in record.items() if value is not None}


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_gets_each_event_as_it_was_sent(gate, mark, version):
    order = {"model": MODEL, "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    done = subprocess.run(
        ["curl", "--no-buffer", "--silent", "--show-error", "--fail", version, "--cacert", gate.ca, "--max-time",
         str(SECONDS), "--header", f"Authorization: Bearer {gate.primary}", "--header", f"{MARK}: {mark}", "--header",
         "Content-Type: application/json", "--data", json.dumps(order), gate.service("llm", "v1/chat/completions")],
        capture_output=True, text=True, timeout=SECONDS + 10,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [line.removeprefix("data: ") for line in done.stdout.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert [it["choices"][0]["delta"].get("content") for it in chunks if it["choices"]] == [*WORDS, None]
    assert chunks[-1]["usage"] == USAGE
    assert has_usage(gate.marked(mark))


def test_the_models_are_listed(client):
    assert [model.id for model in client().models.list()] == [MODEL]


def test_a_wrong_key_is_an_authentication_error(gate, client, mark):
    seen = len(Model.seen)
    with pytest.raises(openai.AuthenticationError) as refused:
        client("wrong").chat.completions.create(model=MODEL, messages=MESSAGES)
    assert refused.value.response.headers["x-scoregate-reason"] == "auth_invalid"
    assert len(Model.seen) == seen
    assert gate.marked(mark)["Reason"] == "auth_invalid"


def test_management_of_the_server_is_not_open(client):
    seen = len(Model.seen)
    with pytest.raises(openai.NotFoundError):
        client().post("/load_lora_adapter", body={"lora_name": "x", "lora_path": "/"}, cast_to=object)
    assert len(Model.seen) == seen


def test_a_client_that_leaves_a_stream_ends_it(gate, client, mark):
    Model.more.clear()
    stream = client().chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    assert next(iter(stream)).choices[0].delta.content == WORDS[0]
    stream.close()
    record = gate.marked(mark)
    assert (record["Reason"], record["EndedBy"]) == ("client_gone", "client")
