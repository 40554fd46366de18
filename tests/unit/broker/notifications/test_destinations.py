from __future__ import annotations

import pytest

from ignition_broker.broker.notifications.destinations import (
    Kind,
    SettingsDestinations,
    parse_email,
    parse_url,
)
from ignition_broker.broker.notifications.mail_server import parse_mail_server


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("https://hooks.example.com/a/b", Kind.WEBHOOK, "https://hooks.example.com/a/b"),
        ("https://hooks.example.com/a?key=s3cret", Kind.WEBHOOK, "https://hooks.example.com/a?…"),
        ("https://hooks.slack.com/services/T/B/s3cret", Kind.SLACK, "https://hooks.slack.com/…"),
        ("slack+https://chat.example.com/hooks/s3cret", Kind.SLACK, "https://chat.example.com/…"),
        ("http://10.0.0.1:8080/x", Kind.WEBHOOK, "http://10.0.0.1:8080/x"),
    ],
)
def test_a_url_says_its_kind_and_shows_no_secret(url, kind, shown):
    parsed = parse_url(url)
    assert (parsed.kind, parsed.shown) == (kind, shown)
    assert "s3cret" not in repr(parsed)
    assert not parsed.target.startswith("slack+")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "ftp://hooks.example.com/",
        "https://",
        "https:///path",
        "https://user:s3cret@hooks.example.com/",
        "https://hooks.example.com/#s3cret",
        "https://hooks.example.com/s3cret path",
        "https://hooks.example.com:99999/s3cret",
        "https://höoks.example.com/s3cret",
        "https://hooks.example.com/\r\nX: s3cret",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://0177.0.0.1/s3cret",
        "https://hooks.example.com/" + "s3cret" * 400,
    ],
)
def test_a_url_that_is_none_is_told_without_being_repeated(url):
    with pytest.raises(ValueError, match="must") as error:
        parse_url(url)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("address", ["", "a", "a@", "@b", "a b@c.d", "a@b\r\nBcc: c@d", "a@b,c@d"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="e-mail address"):
        parse_email(address)


def test_a_destination_of_the_settings_has_the_same_id_everywhere_and_its_kinds_secrets():
    urls = ["https://a.example/", "slack+https://b.example/"]
    one = SettingsDestinations.of(urls, ["whsec_x"], ["admins@example.com"])
    other = SettingsDestinations.of(urls[::-1], ["whsec_x"], ["admins@example.com"])
    assert set(one.by_id) == set(other.by_id)
    signs = {each.kind: each.secrets for each in one.by_id.values()}
    assert signs == {Kind.WEBHOOK: ("whsec_x",), Kind.SLACK: (), Kind.EMAIL: ()}


def test_a_mail_server_is_read_with_its_parts():
    server = parse_mail_server("smtp://jo:p%40ss@mail.example.com?from=broker@example.com")
    assert (server.host, server.port, server.is_tls_from_the_start) == (
        "mail.example.com",
        587,
        False,
    )
    assert (server.username, server.password, server.sender) == (
        "jo",
        "p@ss",
        "broker@example.com",
    )
    assert "p@ss" not in repr(server)
    assert not server.may_be_plain
    assert parse_mail_server("smtps://mail.example.com").port == 465
    assert parse_mail_server("smtp://localhost:1025").may_be_plain


@pytest.mark.parametrize(
    "url",
    [
        "mail.example.com",
        "http://mail.example.com",
        "smtp://",
        "smtp://jo@mail.example.com",
        "smtp://mail.example.com/path",
        "smtp://mail.example.com:x",
        "smtp://mail.example.com?to=a@b.example",
        "smtp://mail.example.com?from=nobody",
    ],
)
def test_a_mail_server_that_is_malformed_is_told(url):
    with pytest.raises(ValueError, match="must"):
        parse_mail_server(url)
