"""What all clients of servers share: which errors may pass, and how a client of OpenAI's library is made."""

import os
from typing import TYPE_CHECKING, Any

from hiexp_verl.text import check_address, is_local

if TYPE_CHECKING:
    import openai


def may_pass(status: int) -> bool:
    """Return whether the same request may be answered later: a time-out, too many requests, a fault of the server."""
    return status in (408, 429) or status >= 500


def openai_client(address: str, timeout: float, retries: int) -> "openai.OpenAI":
    """Return a client of an OpenAI-compatible server; the key is that of OPENAI_API_KEY.

    Raises:
        HiExpError: the address is malformed.
    """
    from openai import DefaultHttpxClient, OpenAI

    return OpenAI(**_options(address, timeout, retries), http_client=DefaultHttpxClient(trust_env=False) if is_local(address) else None)


def async_openai_client(address: str, timeout: float, retries: int) -> "openai.AsyncOpenAI":
    """Return the same for asynchronous code; its connections belong to the running event loop."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    direct = DefaultAsyncHttpxClient(trust_env=False) if is_local(address) else None
    return AsyncOpenAI(**_options(address, timeout, retries), http_client=direct)


# A local server is asked without the proxy of the environment: one for downloads would swallow the calls.
def _options(address: str, timeout: float, retries: int) -> dict[str, Any]:
    check_address(address, "http://localhost:8000/v1#MODEL")
    return {"base_url": address, "api_key": os.environ.get("OPENAI_API_KEY") or "none", "timeout": timeout, "max_retries": retries}
