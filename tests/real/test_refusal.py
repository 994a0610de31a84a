"""Calls that the gateway answers by itself: who may not come in, and what is not there."""

import json
import time

import pytest

from tokens import decode, reissue

DAY = 24 * 3600
FLOWER = '{"data": [[5.1, 3.5, 1.4, 0.2]]}'
JSON = {"Content-Type": "application/json"}


def check_refusal(answer, status, reason):
    """Every answer of the gateway's own says why, in the header and in a body of one shape."""
    assert answer.status == status, answer.body
    assert answer.headers["x-scoregate-reason"] == reason
    assert answer.headers["Content-Type"].startswith("application/json")
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "reason", "requestId"}
    assert error["reason"] == reason
    assert error["requestId"] == answer.headers["x-request-id"]
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.fixture
def call(caller, via):
    """One scoring call, by each kind of client, with a credential or none."""

    def send(service, credential=None, method="POST", path="score", **headers):
        bearer = caller.bearer(credential) if credential else {}
        data = FLOWER if method == "POST" else None
        return caller.call(via, caller.service(service, path), method, {**JSON, **bearer, **headers}, data)

    return send


def test_both_keys_open_the_service(call, gateway):
    for key in (gateway.primary, gateway.secondary):
        answer = call("iris-aks", key)
        assert answer.status == 200
        assert gateway.record(answer.headers["x-request-id"])["AuthType"] == "key"


def test_a_wrong_key(call, gateway):
    answer = call("iris-aks", "wrong-Jd82nVq0PzLk5Ms")
    check_refusal(answer, 401, "auth_invalid")
    assert gateway.record(answer.headers["x-request-id"])["StatusCode"] == 401


def test_a_key_that_only_begins_right(call, gateway):
    check_refusal(call("iris-aks", gateway.primary + "x"), 401, "auth_invalid")
    check_refusal(call("iris-aks", gateway.primary[:-1]), 401, "auth_invalid")


def test_no_key(call):
    check_refusal(call("iris-aks"), 401, "auth_missing")


def test_another_scheme_is_no_key(call, caller, gateway):
    caller.secrets.add(gateway.primary)
    answer = call("iris-aks", Authorization=f"Basic {gateway.primary}")
    assert answer.status == 401
    assert answer.headers["x-scoregate-reason"] in ("auth_missing", "auth_invalid")


@pytest.mark.parametrize("path", ["swagger.json", ""])
def test_swagger_and_health_ask_for_the_key_too(call, path):
    check_refusal(call("iris-aks", method="GET", path=path), 401, "auth_missing")


def test_a_token_opens_the_service_in_token_mode(call, gateway):
    answer = call("iris-token", gateway.mint("iris-token"))
    assert answer.status == 200
    assert answer.json()["species"] == ["setosa"]
    record = gateway.record(answer.headers["x-request-id"])
    assert (record["AuthType"], record["Subject"]) == ("token", "tester")


def test_a_minted_token_lives_as_long_as_it_was_told(gateway):
    _, claims = decode(gateway.mint("iris-token", "--lifetime", "30m"))
    assert claims["exp"] - claims["iat"] == 30 * 60
    assert (claims["aud"], claims["sub"]) == ("iris-token", "tester")


def test_an_expired_token(call, gateway):
    yesterday = int(time.time()) - DAY
    token = gateway.mint("iris-token")
    old = reissue(token, gateway.certs / "token.key", iat=yesterday - 60, nbf=yesterday - 60, exp=yesterday)
    check_refusal(call("iris-token", old), 401, "auth_expired")


def test_a_token_signed_anew_is_good(call, gateway):
    """So that the refusals around it are for what they say, and not for the way these tests sign."""
    token = gateway.mint("iris-token")
    assert call("iris-token", reissue(token, gateway.certs / "token.key")).status == 200


def test_a_token_from_tomorrow(call, gateway):
    tomorrow = int(time.time()) + DAY
    token = reissue(gateway.mint("iris-token"), gateway.certs / "token.key", nbf=tomorrow, exp=tomorrow + DAY)
    check_refusal(call("iris-token", token), 401, "auth_invalid")


@pytest.mark.parametrize("claim", [{"aud": "iris-aks"}, {"iss": "https://elsewhere.test"}])
def test_a_token_of_somebody_else(call, gateway, claim):
    token = reissue(gateway.mint("iris-token"), gateway.certs / "token.key", **claim)
    check_refusal(call("iris-token", token), 401, "auth_invalid")


def test_a_token_that_another_key_signed(call, gateway):
    token = reissue(gateway.mint("iris-token"), gateway.certs / "server.key")
    check_refusal(call("iris-token", token), 401, "auth_invalid")


def test_a_key_is_no_token_and_a_token_is_no_key(call, gateway):
    check_refusal(call("iris-token", gateway.primary), 401, "auth_invalid")
    check_refusal(call("iris-aks", gateway.mint("iris-token")), 401, "auth_invalid")


def test_an_unknown_service(call, gateway):
    answer = call("no-such-service", gateway.primary)
    check_refusal(answer, 404, "unknown_service")
    assert gateway.record(answer.headers["x-request-id"])["StatusCode"] == 404


def test_a_path_that_no_service_has(caller, via):
    check_refusal(caller.call(via, caller.url("/nowhere"), "GET"), 404, "unknown_service")


def test_an_unknown_deployment(call, gateway):
    answer = call("iris-aks", gateway.primary, **{"azureml-model-deployment": "mauve"})
    check_refusal(answer, 404, "unknown_service")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_other_methods(call, gateway, method):
    answer = call("iris-aks", gateway.primary, method=method)
    check_refusal(answer, 405, "bad_request")
    assert "POST" in answer.headers["Allow"]


def test_a_refusal_says_nothing_of_the_inside(call, gateway):
    body = json.dumps(call("iris-aks", "wrong-Jd82nVq0PzLk5Ms").json())
    assert "127.0.0.1" not in body and "blue" not in body
