"""Who is asked for a file, and with which credentials: a URL becomes a store of obstore and a path.

Credentials are looked for where the tools of each cloud look. obstore reads most of their
variables and asks the machine for its role; the rest is here: their files and older names.
"""

from __future__ import annotations

import base64
import os
from configparser import ConfigParser
from configparser import Error as ConfigError
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from vhdx2raw.errors import RemoteError
from vhdx2raw.source.remote.options import RemoteOptions
from vhdx2raw.source.remote.url import RemoteUrl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import ClientConfig, ObjectStore

NOWHERE = "127.0.0.1:0"
"""Where nothing can be reached, as the proxy of whatever is not the host of a URL."""
CONNECT_SECONDS = 10.0
"""The most that a connection may take; a machine without a role waits so long for one."""
REQUEST_SECONDS = 2 * 3600
"""What a whole request may take; that something comes at all is a matter of `timeout`."""
CREDENTIALS_REMEDY = "see docs/remote.md for where they are looked for, or try {anonymous}"
ACCOUNT_REMEDY = (
    "set AZURE_STORAGE_ACCOUNT, or write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/NAME"
)
BOTO3_REMEDY = "install it: pip install boto3"
_AWS_INDIRECT = (
    *("role_arn", "credential_process", "credential_source"),
    *("sso_session", "sso_start_url"),
)
"""What stands in a profile that has no keys itself: roles, programs, single sign-on."""
_AWS_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


class Place(NamedTuple):
    """A file in a store."""

    store: ObjectStore
    path: str


def open_store(url: RemoteUrl, options: RemoteOptions, *, is_guarded: bool) -> Place:
    """Return where a file is; nothing is asked for yet.

    Args:
        url: The file.
        options: How it is read.
        is_guarded: Whether a web server must not lead to another host.

    Raises:
        RemoteError: What is set for the store is incomplete or cannot be understood.
        OSError: The file with certificates cannot be read.
    """
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=min(options.timeout, CONNECT_SECONDS)),
        "read_timeout": timedelta(seconds=options.timeout),
        "timeout": timedelta(seconds=REQUEST_SECONDS),
    }
    if options.ca_file is not None:
        client["root_certificate"] = _read_certificates(options.ca_file)
    # A request is made again by `Transfer`, which counts that.
    settings: dict[str, Any] = {"client_options": client, "retry_config": {"max_retries": 0}}
    path = url.path
    try:
        if url.scheme == "s3":
            store: ObjectStore = S3Store(url.host, **_set_aws(settings, options.anonymous))
        elif url.scheme == "gs":
            store = GCSStore(url.host, **_set_google(settings, options.anonymous))
        elif url.scheme == "az":
            store = AzureStore(url.host, **_set_azure(settings, url, options.anonymous))
        else:
            # The store is the URL as it is, with its query and its way of writing.
            store, path = HTTPStore(_set_web(settings, url, is_guarded=is_guarded), **settings), ""
    except (BaseError, ValueError):  # whose text may have anything in it
        problem = "cannot be asked for with what is set in the environment"
        raise RemoteError(problem, path=url.name, remedy=CREDENTIALS_REMEDY) from None
    except RemoteError as error:
        error.path = url.name
        raise
    return Place(store, path)


def _read_certificates(path: str | os.PathLike[str]) -> bytes:
    import ssl  # noqa: PLC0415 - takes a while, and most servers need no file

    data = Path(path).read_bytes()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise RemoteError("holds no certificates in PEM", path=os.fspath(path)) from None
    return data


def _set_web(settings: dict[str, Any], url: RemoteUrl, *, is_guarded: bool) -> str:
    """Set what a web server needs; return the URL without what is sent in another way."""
    client: ClientConfig = settings["client_options"]
    client["allow_http"] = url.scheme == "http"  # else no redirect leads there either
    if url.user:
        token = base64.b64encode(unquote(url.user).encode()).decode()
        client["default_headers"] = {"Authorization": f"Basic {token}"}
    if is_guarded:
        client["proxy_url"] = f"http://{NOWHERE}"
        client["proxy_excludes"] = urlsplit(f"//{url.host}").hostname or url.host
    query = f"?{url.query}" if url.query else ""
    return f"{url.scheme}://{url.host}/{url.path}{query}"


def _set_aws(settings: dict[str, Any], anonymous: bool) -> dict[str, Any]:  # noqa: FBT001
    environment = os.environ
    _allow_http(settings, _first(environment, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    region = _first(environment, "AWS_REGION", "AWS_DEFAULT_REGION")
    settings["region"] = region or _aws_profile(environment).get("region") or "us-east-1"
    found = {"skip_signature": True} if anonymous else _aws_credentials(environment)
    return settings | found


def _set_google(settings: dict[str, Any], anonymous: bool) -> dict[str, Any]:  # noqa: FBT001
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    if emulator:
        settings["base_url"] = emulator = emulator if "://" in emulator else f"http://{emulator}"
    _allow_http(settings, emulator or os.environ.get("GOOGLE_BASE_URL", ""))
    if anonymous or emulator:
        settings["skip_signature"] = True
    return settings


def _set_azure(
    settings: dict[str, Any],
    url: RemoteUrl,
    anonymous: bool,  # noqa: FBT001
) -> dict[str, Any]:
    found = _azure_config(os.environ, url.account)
    is_emulated = os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true", "yes")
    if not (found["account_name"] or is_emulated):
        raise RemoteError("names no storage account", remedy=ACCOUNT_REMEDY)
    _allow_http(settings, "http://" if is_emulated else found["endpoint"])
    if anonymous:
        found |= {"account_key": "", "sas_key": ""}
        settings["skip_signature"] = True
    return settings | {key: value for key, value in found.items() if value}


def _allow_http(settings: dict[str, Any], endpoint: str) -> None:
    """Allow connections without encryption to an endpoint that the user has set like this."""
    if endpoint.lower().startswith("http://"):
        settings["client_options"]["allow_http"] = True


def _first(values: Mapping[str, str], *names: str) -> str:
    """Return the first value that is there and not empty, or nothing."""
    return next(filter(None, map(values.get, names)), "") or ""


def _aws_credentials(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what stands in the files of the AWS tools, if the environment has no keys."""
    if environment.get("AWS_ACCESS_KEY_ID") or environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return {}
    profile = _aws_profile(environment)
    if "aws_access_key_id" in profile and "role_arn" not in profile:
        return {name.removeprefix("aws_"): profile[name] for name in _AWS_KEYS if name in profile}
    if not any(name in profile for name in _AWS_INDIRECT):
        return {}
    if not find_spec("boto3"):
        raise RemoteError(
            "needs boto3, for the profile of AWS that was chosen", remedy=BOTO3_REMEDY
        )
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415 - for those alone

    try:
        return {"credential_provider": Boto3CredentialProvider()}
    except Exception:  # noqa: BLE001 - it has many, whose texts may have anything in them
        problem = "cannot be asked for: the chosen profile of AWS gives no credentials"
        raise RemoteError(problem, remedy=CREDENTIALS_REMEDY) from None


def _aws_profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the chosen profile of both files of the AWS tools; nothing if there is none."""
    name = environment.get("AWS_PROFILE") or "default"
    folder = Path("~/.aws").expanduser()
    config = environment.get("AWS_CONFIG_FILE") or folder / "config"
    credentials = environment.get("AWS_SHARED_CREDENTIALS_FILE") or folder / "credentials"
    section = name if name == "default" else f"profile {name}"
    return _read_section(config, section) | _read_section(credentials, name)


def _read_section(path: str | os.PathLike[str], name: str) -> dict[str, str]:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (ConfigError, OSError, UnicodeDecodeError):  # as if it were not there
        return {}
    return dict(parser[name]) if parser.has_section(name) else {}


def _azure_config(environment: Mapping[str, str], account: str) -> dict[str, str]:
    """Return what obstore does not read itself: a connection string, and names of the `az` tool.

    What belongs to another account than that of the URL is left out.
    """
    text = environment.get("AZURE_STORAGE_CONNECTION_STRING", "")
    pairs = (part.partition("=") for part in text.split(";"))
    known = {**environment, **{name.lower(): value for name, _, value in pairs}}
    found = {
        "account_name": _first(
            known, "accountname", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"
        ),
        "account_key": _first(known, "accountkey", "AZURE_STORAGE_KEY"),
        "sas_key": _first(known, "sharedaccesssignature"),
        "endpoint": _first(known, "blobendpoint", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    }
    if account and found["account_name"] != account:
        found = dict.fromkeys(found, "") | {"account_name": account}
    return found | {"endpoint": found["endpoint"].rstrip("/")}
