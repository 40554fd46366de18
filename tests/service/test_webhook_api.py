"""Destinations by the admin API: made, signed, rotated, resent, deleted; e-mail, Slack; and the
stream of events."""

from __future__ import annotations

import json
import signal
import threading
import time
from dataclasses import replace

import httpx
import pytest
from aiosmtpd.controller import Controller
from cryptography.fernet import Fernet
from standardwebhooks import Webhook
from tests.conftest import free_port, sql, wait_until
from tests.service.webhook_receiver import receiver as started_receiver


class Mailbox:
    """A mail server on this machine, which can be told to refuse."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, str]] = []
        self.refuses = False

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
        if self.refuses:
            return "451 try later"
        self.mails.append((envelope.rcpt_tos[0], envelope.content.decode()))
        return "250 taken"


@pytest.fixture(scope="module")
def mailbox():
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    box.port = controller.port
    yield box
    controller.stop()


@pytest.fixture(scope="module")
def receiver(tmp_path_factory):
    yield from started_receiver(tmp_path_factory.mktemp("receiver"))


@pytest.fixture(scope="module")
def more_settings(mailbox):
    return {
        "BROKER_WEBHOOK_ALLOW": "127.0.0.0/8,::1,localhost",
        "BROKER_SMTP_URL": f"smtp://localhost:{mailbox.port}?from=broker@example.com",
        "BROKER_NOTIFY_EMAILS": "admins@example.com",
    }


@pytest.fixture
def admin(broker):
    with broker.client() as client:
        yield client


def make(admin, **body) -> dict:
    answer = admin.post("/admin/webhooks", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def of(receiver, tenant: str) -> list[dict]:
    return [each for each in receiver.received() if f'"{tenant}"' in each["body"]]


def deliveries(admin, made: dict) -> list[dict]:
    return admin.get(f"/admin/webhooks/{made['id']}/deliveries").json()["deliveries"]


def test_a_webhook_made_by_an_admin_gets_what_it_asks_for_signed_by_its_own_secret(
    broker, admin, receiver
):
    made = make(admin, url=receiver.url, types=["tenant.disconnected"])
    assert (made["kind"], made["url"], made["from_settings"]) == ("webhook", receiver.url, False)
    broker.connect("chosen")
    assert admin.post("/admin/tenants/chosen/disconnect").status_code == 200
    wait_until(lambda: of(receiver, "chosen"), what="a webhook")
    [entry] = of(receiver, "chosen")
    assert Webhook(made["secret"]).verify(entry["body"], entry["headers"])["type"] == (
        "tenant.disconnected"
    )
    wait_until(lambda: [each["state"] for each in deliveries(admin, made)] == ["taken"])
    [delivery] = deliveries(admin, made)
    assert (delivery["http_status"], delivery["tries"], delivery["tenant"]) == (204, 1, "chosen")
    listed = admin.get("/admin/webhooks").json()["webhooks"]
    assert made["secret"] not in json.dumps(listed)
    assert admin.delete(f"/admin/webhooks/{made['id']}").status_code == 204
    assert admin.get(f"/admin/webhooks/{made['id']}/deliveries").status_code == 404


def test_a_delivery_is_sent_again_on_request_with_the_same_id(broker, admin, receiver):
    made = make(admin, url=receiver.url, types=["tenant.connected"])
    broker.connect("resent")
    wait_until(lambda: [each["state"] for each in deliveries(admin, made)] == ["taken"])
    [delivery] = deliveries(admin, made)
    path = f"/admin/webhooks/{made['id']}/deliveries/{delivery['id']}/resend"
    assert admin.post(path).status_code == 204
    wait_until(lambda: len(of(receiver, "resent")) == 2, what="it came again")
    assert len({each["headers"]["webhook-id"] for each in of(receiver, "resent")}) == 1
    assert admin.post(path.replace(f"/{delivery['id']}/", "/999999/")).status_code == 404
    admin.delete(f"/admin/webhooks/{made['id']}")


def test_a_rotated_secret_signs_beside_the_one_before_and_keys_rotate_keeps_both(
    broker, admin, receiver, postgres, database_url
):
    made = make(admin, url=receiver.url, types=["test"])
    rotated = admin.post(f"/admin/webhooks/{made['id']}/secret", json={"grace_seconds": 600})
    assert rotated.status_code == 201
    keys = broker.settings["BROKER_ENCRYPTION_KEYS"]
    newest = Fernet.generate_key().decode()
    rotating = replace(
        broker, settings={**broker.settings, "BROKER_ENCRYPTION_KEYS": f"{newest},{keys}"}
    )
    stored = f"SELECT target, secret, previous_secret FROM webhooks WHERE id = '{made['id']}'"
    before = sql(postgres, database_url, stored).split("|")
    assert rotating.command("keys", "rotate").returncode == 0
    after = sql(postgres, database_url, stored).split("|")
    assert all(left != right for left, right in zip(before, after, strict=True))
    back = replace(
        broker, settings={**broker.settings, "BROKER_ENCRYPTION_KEYS": f"{keys},{newest}"}
    )
    assert back.command("keys", "rotate").returncode == 0
    sent = admin.post(f"/admin/webhooks/{made['id']}/test").json()["event_id"]
    came = lambda: [e for e in receiver.received() if e["headers"].get("webhook-id") == sent]  # noqa: E731
    [entry] = wait_until(came, what="the test event")
    for secret in (made["secret"], rotated.json()["secret"]):
        assert Webhook(secret).verify(entry["body"], entry["headers"])["type"] == "test"
    admin.delete(f"/admin/webhooks/{made['id']}")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, "url, email"),
        ({"url": "https://a.example/", "email": "a@b.example"}, "url, email"),
        ({"url": "http://hooks.example.org@10.0.0.1/"}, "url: must have neither credentials"),
        ({"url": "https://10.0.0.1/"}, "url: its address is not a public one"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url: its address is not a public one"),
        ({"url": "https://169.254.169.254/latest"}, "url: its address is not a public one"),
        ({"url": "ftp://hooks.example.com/"}, "url: must be an absolute https URL"),
        ({"email": "nobody"}, "email: must be an e-mail address"),
        ({"url": "https://a.example/", "types": ["nothing"]}, "types: some of"),
    ],
)
def test_what_can_not_be_a_destination_is_told(admin, body, names):
    answer = admin.post("/admin/webhooks", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(names)


def test_a_destination_of_the_settings_is_listed_and_stays(admin):
    def found() -> list[dict]:
        rows = admin.get("/admin/webhooks").json()["webhooks"]
        return [each for each in rows if each["from_settings"]]

    [own] = wait_until(found, what="the e-mail address of the settings")
    assert (own["kind"], own["url"]) == ("email", "admins@example.com")
    assert admin.delete(f"/admin/webhooks/{own['id']}").status_code == 409
    assert admin.post(f"/admin/webhooks/{own['id']}/secret").status_code == 409


def test_500_grants_that_end_at_once_are_one_mail_which_is_tried_again(
    broker, mailbox, postgres, database_url
):
    run = lambda statement: sql(postgres, database_url, statement)  # noqa: E731
    # What other tests did is told of in a mail of its own.
    run("DELETE FROM webhook_deliveries")
    run("UPDATE webhooks SET last_sent_at = NULL")
    mailbox.mails.clear()
    mailbox.refuses = True
    run("INSERT INTO tenants SELECT 'many' || n FROM generate_series(1, 500) n")
    run(
        "INSERT INTO grants (tenant_id, status, version) "
        "SELECT id, 'connected', 1 FROM tenants WHERE id LIKE 'many%'"
    )
    run(
        "UPDATE grants SET status = 'reauthorization_required', last_error = 'invalid_grant' "
        "WHERE tenant_id LIKE 'many%'"
    )
    refused = "SELECT count(*) FROM webhook_deliveries WHERE tries > 0 AND error LIKE '%451%'"
    wait_until(lambda: int(run(refused)) == 500, 40, what="a mail was refused")
    mailbox.refuses = False
    wait_until(lambda: mailbox.mails, 60, what="the mail")
    waiting = "SELECT count(*) FROM webhook_deliveries WHERE state = 'waiting'"
    wait_until(lambda: run(waiting) == "0", what="all are told")
    [(address, mail)] = mailbox.mails
    assert address == "admins@example.com"
    assert "Subject: [ignition-broker] 500 tenants to connect again" in mail
    assert "From: broker@example.com" in mail
    assert "and 400 more" in mail


def test_slack_gets_sentences_and_its_url_is_not_shown(broker, admin, receiver):
    url = f"slack+http://localhost:{receiver.port}/services/T0/B0/s3cret"
    made = make(admin, url=url, types=["tenant.connected"])
    assert (made["kind"], made["secret"]) == ("slack", None)
    assert "s3cret" not in json.dumps(made)
    broker.connect("talked")
    came = lambda: [e for e in receiver.received() if e["path"].endswith("s3cret")]  # noqa: E731
    [entry] = wait_until(came, 40, what="a message")
    assert "talked is connected" in json.loads(entry["body"])["text"]
    assert "s3cret" not in broker.log_text()
    admin.delete(f"/admin/webhooks/{made['id']}")


class Stream:
    """Reads server-sent events in a thread."""

    def __init__(self, broker, last_event_id: str | None = None, key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {key or broker.admin_key}"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        self.lines: list[str] = []
        self.error: Exception | None = None
        self._url, self._headers = f"{broker.url}/admin/events", headers
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        wait_until(lambda: self.lines or self.error, what="the stream's beginning")
        assert self.error is None

    def _read(self) -> None:
        try:
            with (
                httpx.Client(timeout=60) as client,
                client.stream("GET", self._url, headers=self._headers) as answer,
            ):
                assert answer.headers["content-type"].startswith("text/event-stream")
                for line in answer.iter_lines():
                    self.lines.append(line)
        except Exception as error:
            self.error = error

    def of(self, prefix: str) -> list[str]:
        return [each.removeprefix(prefix) for each in self.lines if each.startswith(prefix)]

    def tenants(self) -> list[str]:
        return [json.loads(each)["data"]["tenant"] for each in self.of("data: ")]

    def has_ended(self) -> bool:
        return not self._thread.is_alive()


def test_a_stream_tells_what_happens_and_resumes_behind_the_last_event(broker):
    stream = Stream(broker)
    broker.connect("live1")
    broker.connect("live2")
    wait_until(lambda: stream.tenants() == ["live1", "live2"], what="both")
    assert stream.of("event: ") == ["tenant.connected", "tenant.connected"]
    first, second = stream.of("id: ")
    resumed = Stream(broker, last_event_id=first)
    wait_until(lambda: resumed.of("id: ") == [second], what="the second alone")
    lost = Stream(broker, last_event_id=str(10**9))
    wait_until(lambda: lost.of("event: ") == ["events.missed"], what="that events are missing")
    with broker.client() as admin:
        assert admin.get("/admin/events", headers={"Last-Event-ID": "x"}).status_code == 422


def test_a_stream_has_heartbeats_and_ends_with_its_key(broker):
    key = broker.make_key("streaming", ["admin"], [])
    stream = Stream(broker, key=key)
    wait_until(lambda: ": heartbeat" in stream.lines, 25, what="a heartbeat")
    with broker.client() as admin:
        assert admin.delete("/admin/api-keys/streaming").status_code == 204
    wait_until(stream.has_ended, 25, what="the stream's end")
    assert stream.error is None


def test_a_head_of_the_stream_ends_at_once(admin):
    assert admin.head("/admin/events", timeout=5).status_code == 200


def test_streams_end_in_order_when_the_process_stops(broker):
    stream = Stream(broker)
    began = time.monotonic()
    assert broker.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 6
    wait_until(stream.has_ended, what="the stream's end")
    assert stream.error is None
    assert "calls_cut_off" not in broker.log_text()
    assert broker.tracebacks() == []
    broker.start()
