"""The token of an IAM login equals the token that botocore makes, as AWS documents it."""

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from sidecar.iam_settings import AwsKeys, Iam
from sidecar.redis.aws_signature import login_token
from tests.support.iam import presigned_by_botocore

KEYS = [
    AwsKeys("AKIAEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    AwsKeys("ASIAEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a/token+with==every&sign ~._-%"),
]


@pytest.mark.parametrize("keys", KEYS, ids=["static", "role"])
@pytest.mark.parametrize("serverless", [False, True])
@pytest.mark.parametrize("user", ["sidecar", "leader-01"])
def test_the_token_equals_that_of_botocore(keys: AwsKeys, user: str, *, serverless: bool) -> None:
    theirs = presigned_by_botocore(keys, cache="portfolio", user=user, region="us-west-2", serverless=serverless)
    [date] = parse_qs(urlsplit(f"https://{theirs}").query)["X-Amz-Date"]
    at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = login_token(Iam("portfolio", "us-west-2", serverless, keys), user, keys, at)
    assert parse_qs(ours) == parse_qs(theirs)
    assert ours.partition("/?")[0] == theirs.partition("/?")[0] == "portfolio"


def test_a_token_has_no_url_scheme_and_ends_with_its_signature() -> None:
    token = login_token(Iam("portfolio", "eu-central-1", False, KEYS[1]), "sidecar", KEYS[1], datetime.now(UTC))
    assert token.startswith("portfolio/?Action=connect&User=sidecar&")
    assert len(token.rpartition("&X-Amz-Signature=")[2]) == 64
