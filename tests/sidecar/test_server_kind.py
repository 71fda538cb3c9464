"""The settings for the kind of Redis; each invalid setting is reported in one line that names the variable."""

import pytest
from redis.crc import key_slot

from sidecar.server_kind import SENTINEL_PORT, Cluster, Sentinels, slot_of
from sidecar.settings import SettingsError, read

SECRET = "correct-horse"
ONE_SLOT = {"LEASE_KEY": "{portfolio}:{name}:leader"}
GROUP = {"REDIS_SENTINELS": "a:1,b", "REDIS_SENTINEL_MASTER": "portfolio"}


@pytest.mark.parametrize("key", ["a", "{a}b", "b{a}", "a{}b", "{}", "a{b", "a}b{c}", "{a}{b}", "portfolio:x:leader"])
def test_the_slot_of_a_key_equals_that_of_a_real_cluster(key: str) -> None:
    assert slot_of(key) == key_slot(key.encode())


def test_a_single_server_is_the_default() -> None:
    assert read({}).kind is None
    assert read({"REDIS_CLUSTER": "false"}).kind is None


def test_redis_cluster_requires_the_keys_of_a_lease_in_one_slot() -> None:
    settings = read({"REDIS_CLUSTER": "true", **ONE_SLOT})
    assert settings.kind == Cluster(key_slot(b"portfolio"))
    assert read({"REDIS_CLUSTER": "true", "LEASES": "one"}).kind == Cluster(slot_of("portfolio:one:leader"))


def test_sentinels_are_read_with_their_ports() -> None:
    environment = {**GROUP, "REDIS_SENTINELS": "a, [::1]:2 ,::1,10.0.0.1:3", "REDIS_SENTINEL_PASSWORD": SECRET}
    settings = read(environment)
    assert isinstance(settings.kind, Sentinels)
    assert settings.kind.nodes == (("a", SENTINEL_PORT), ("::1", 2), ("::1", SENTINEL_PORT), ("10.0.0.1", 3))
    assert (settings.kind.master, settings.kind.password) == ("portfolio", SECRET)
    assert "portfolio" in settings.redis.place
    assert "a:26379" in settings.redis.place
    assert SECRET not in repr(settings)


WRONG = [
    ("LEASE_KEY", {"REDIS_CLUSTER": "true"}, "{portfolio}:{name}:leader"),
    ("LEASE_KEY", {"REDIS_CLUSTER": "true", "LEASE_KEY": "{{name}}"}, "{portfolio}:{name}:leader"),
    ("REDIS_CLUSTER", {"REDIS_CLUSTER": "perhaps"}, "true or false"),
    ("REDIS_CLUSTER", {"REDIS_CLUSTER": "true", "REDIS_URL": "redis://h/3", **ONE_SLOT}, "REDIS_URL"),
    ("REDIS_CLUSTER", {"REDIS_CLUSTER": "true", "REDIS_URL": "redis://h?db=3", **ONE_SLOT}, "REDIS_URL"),
    ("REDIS_CLUSTER", {"REDIS_CLUSTER": "true", "REDIS_URL": "unix:///s", **ONE_SLOT}, "REDIS_URL"),
    ("REDIS_URL", {"REDIS_CLUSTER": "true", "REDIS_URL": "redis://[h", **ONE_SLOT}, ""),
    ("REDIS_CLUSTER", {"REDIS_CLUSTER": "true", **GROUP, **ONE_SLOT}, "REDIS_SENTINELS"),
    ("REDIS_HOST", {"REDIS_HOST": "h", **GROUP}, "REDIS_SENTINELS"),
    ("REDIS_PORT", {"REDIS_PORT": "1", **GROUP}, "REDIS_SENTINELS"),
    ("REDIS_URL", {"REDIS_URL": f"redis://:{SECRET}@h", **GROUP}, "REDIS_SENTINELS"),
    ("REDIS_SENTINEL_MASTER", {"REDIS_SENTINELS": "a"}, "REDIS_SENTINELS"),
    ("REDIS_SENTINEL_MASTER", {"REDIS_SENTINEL_MASTER": "a"}, "REDIS_SENTINELS"),
    ("REDIS_SENTINEL_PASSWORD", {"REDIS_SENTINEL_PASSWORD": SECRET}, "REDIS_SENTINELS"),
    ("REDIS_SENTINEL_PASSWORD", {**GROUP, "REDIS_SENTINEL_USERNAME": "u"}, "REDIS_SENTINEL_USERNAME"),
    ("REDIS_TIMEOUT", {**GROUP, "REDIS_TIMEOUT": "3"}, "REDIS_SENTINELS"),
    ("REDIS_SENTINELS", {**GROUP, "REDIS_SENTINELS": "a,,b"}, "no host"),
    ("REDIS_SENTINELS", {**GROUP, "REDIS_SENTINELS": "a:0"}, "HOST:PORT"),
    ("REDIS_SENTINELS", {**GROUP, "REDIS_SENTINELS": "a:1,a:1"}, "twice"),
    ("REDIS_SENTINELS", {**GROUP, "REDIS_SENTINELS": f"redis://:{SECRET}@a:1"}, ""),
    ("REDIS_SENTINELS", {**GROUP, "REDIS_SENTINELS": f"{SECRET}@a:1"}, "user"),
]


@pytest.mark.parametrize(("name", "environment", "says"), WRONG)
def test_contradicting_settings_are_refused_in_one_line(name: str, environment: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(environment)
    text = str(refused.value)
    assert text.startswith(f"{name}: ")
    assert says in text
    assert "\n" not in text
    assert SECRET not in text


def test_the_error_for_a_sentinel_has_no_remedy_of_redis_host() -> None:
    """REDIS_URL must not be set beside REDIS_SENTINELS, so the remedies for REDIS_HOST would be wrong."""
    with pytest.raises(SettingsError) as refused:
        read({**GROUP, "REDIS_SENTINELS": "redis://a:1"})
    assert str(refused.value) == "REDIS_SENTINELS: not the name or the address of a host"
