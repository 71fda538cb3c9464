"""Bodies of HTTP answers, read up to a limit.

`sidecar.client` has its own reader, because a client library should import as little of the project as possible.
"""

import aiohttp


class AnswerTooLarge(ValueError):
    """The body of an answer is larger than the limit."""


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body of an answer, decompressed.

    Args:
        response: the answer.
        limit: maximum length of the body, in bytes.

    Raises:
        AnswerTooLarge: the body is longer than the limit.
        aiohttp.ClientError: the connection broke.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise AnswerTooLarge("the answer is too large")
    return bytes(body)
