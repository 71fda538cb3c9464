"""The token with which ElastiCache checks an IAM login: a presigned request of AWS's Signature Version 4.

https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/auth-iam.html
"""

import hmac
from datetime import datetime
from hashlib import sha256
from urllib.parse import quote

from sidecar.iam_settings import AwsKeys, Iam

_VALID_FOR = 900
"""Seconds for which a token can be used to log in: the maximum that ElastiCache accepts."""
_NO_BODY = sha256(b"").hexdigest()


def login_token(iam: Iam, username: str, keys: AwsKeys, at: datetime) -> str:
    """The password with which the user can log in for 15 minutes from `at` on.

    Args:
        iam: the cache, its region and its kind.
        username: the user of Redis.
        keys: the credentials that sign.
        at: the time, in UTC.
    """
    date, time = f"{at:%Y%m%d}", f"{at:%Y%m%dT%H%M%SZ}"
    scope = f"{date}/{iam.region}/elasticache/aws4_request"
    parameters = {
        "Action": "connect",
        **({"ResourceType": "ServerlessCache"} if iam.serverless else {}),
        "User": username,
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{keys.key_id}/{scope}",
        "X-Amz-Date": time,
        "X-Amz-Expires": str(_VALID_FOR),
        **({"X-Amz-Security-Token": keys.session_token} if keys.session_token is not None else {}),
        "X-Amz-SignedHeaders": "host",
    }
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in parameters.items())
    request = f"GET\n/\n{query}\nhost:{iam.cache}\n\nhost\n{_NO_BODY}"
    text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{sha256(request.encode()).hexdigest()}"
    key = f"AWS4{keys.secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{iam.cache}/?{query}&X-Amz-Signature={key.hex()}"
