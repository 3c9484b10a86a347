"""Which store is asked, and with what of the environment and of the files of the clouds."""

from pathlib import Path

import pytest
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from vhdx2raw.errors import RemoteError
from vhdx2raw.source.remote import stores
from vhdx2raw.source.remote.options import RemoteOptions
from vhdx2raw.source.remote.stores import Place, open_store
from vhdx2raw.source.remote.url import parse_url

AZURE_KEY = "c2VjcmV0"
VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_KEY"),
    *("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_USE_EMULATOR"),
    *("STORAGE_EMULATOR_HOST", "GOOGLE_BASE_URL"),
)


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def opened(text: str, **options: object) -> Place:
    return open_store(parse_url(text), RemoteOptions(**options), is_guarded=False)  # type: ignore[arg-type]


def client_of(url: str) -> dict[str, object]:
    store = opened(url).store
    assert isinstance(store, S3Store | GCSStore)
    return dict(store.client_options or {})


def s3_config(**options: object) -> dict[str, object]:
    place = opened("s3://bucket/vm/disk.vhdx", **options)
    assert isinstance(place.store, S3Store)
    assert place.path == "vm/disk.vhdx"
    return dict(place.store.config)


def azure_config(text: str = "az://exports/disk.vhdx", **options: object) -> dict[str, object]:
    place = opened(text, **options)
    assert isinstance(place.store, AzureStore)
    assert place.path == "disk.vhdx"
    return dict(place.store.config)


def test_web_server_is_asked_for_the_url_without_its_user() -> None:
    place = opened("https://me:p%40ss@host:8443/a/my%20disk.vhdx?sig=1", timeout=2)
    assert isinstance(place.store, HTTPStore)
    assert (place.store.url, place.path) == ("https://host:8443/a/my%20disk.vhdx?sig=1", "")
    client = dict(place.store.client_options or {})
    assert client["default_headers"] == {"authorization": b"Basic bWU6cEBzcw=="}
    assert str(client["allow_http"]).lower() == "false"


def test_a_guarded_web_server_leads_nowhere_else() -> None:
    url = parse_url("http://host:8080/base.vhdx")
    store = open_store(url, RemoteOptions(), is_guarded=True).store
    assert isinstance(store, HTTPStore)
    client = dict(store.client_options or {})
    assert (client["proxy_url"], client["proxy_excludes"]) == ("http://127.0.0.1:0", "host")


def test_aws_without_anything_has_a_region() -> None:
    assert s3_config() == {"bucket": "bucket", "region": "us-east-1"}


def test_aws_anonymous_reads_no_credentials(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKID\n")
    config = s3_config(anonymous=True)
    assert "access_key_id" not in config
    assert str(config["skip_signature"]).lower() == "true"


def test_aws_profile_is_read_from_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("[profile work]\nregion = eu-west-1\n")
    lines = "[work]\naws_access_key_id=AKID\naws_secret_access_key=a%b\naws_session_token=t\n"
    (tmp_path / "credentials").write_text(lines)
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert s3_config() == {
        "bucket": "bucket",
        "region": "eu-west-1",
        "access_key_id": "AKID",
        "secret_access_key": "a%b",
        "session_token": "t",
    }


@pytest.mark.parametrize("content", [b"no section", b"\xff\xfe", b"[default]\nregion = x"])
def test_aws_file_that_has_nothing_to_say(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "credentials").write_bytes(content)
    assert "access_key_id" not in s3_config()


PROFILE = "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = none\n"


def test_aws_profile_that_needs_boto3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(PROFILE)
    monkeypatch.setattr(stores, "find_spec", lambda _name: None)
    with pytest.raises(
        RemoteError, match=r"needs boto3, for the profile of AWS that was"
    ) as caught:
        s3_config()
    assert caught.value.path == "s3://bucket/vm/disk.vhdx"
    assert caught.value.hint == "install it: pip install boto3"


@pytest.mark.slow
def test_aws_profile_that_gives_no_credentials(tmp_path: Path) -> None:
    pytest.importorskip("boto3")
    (tmp_path / "config").write_text(PROFILE)
    with pytest.raises(RemoteError, match="the chosen profile of AWS gives no credentials"):
        s3_config()


def test_aws_environment_comes_before_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = FILE\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    config = s3_config()
    assert config["region"] == "eu-central-1"
    assert config.get("access_key_id") != "FILE"


def test_an_endpoint_without_encryption_is_the_choice_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, url in {
        "AWS_ENDPOINT_URL": "s3://bucket/disk.vhdx",
        "STORAGE_EMULATOR_HOST": "gs://bucket/disk.vhdx",
    }.items():
        assert "allow_http" not in client_of(url)
        monkeypatch.setenv(variable, "http://localhost:9000")
        assert "allow_http" in client_of(url)


@pytest.mark.parametrize("host", ["localhost:4443", "http://localhost:4443"])
def test_google_emulator_has_no_credentials(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
    store = opened("gs://bucket/disk.vhdx").store
    assert isinstance(store, GCSStore)
    config = dict(store.config)
    assert config["base_url"] == "http://localhost:4443"
    assert str(config["skip_signature"]).lower() == "true"


def test_azure_connection_string(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"AccountName=me;AccountKey={AZURE_KEY};BlobEndpoint=http://localhost:10000/me/"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    config = azure_config()
    assert (config["account_name"], config["account_key"]) == ("me", AZURE_KEY)
    assert config["endpoint"] == "http://localhost:10000/me"


def test_azure_names_of_its_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "me")
    monkeypatch.setenv("AZURE_STORAGE_KEY", AZURE_KEY)
    config = azure_config()
    assert (config["account_name"], config["account_key"]) == ("me", AZURE_KEY)
    config = azure_config(anonymous=True)
    assert "account_key" not in config
    assert str(config["skip_signature"]).lower() == "true"


def test_azure_credentials_are_for_their_own_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "me")
    monkeypatch.setenv("AZURE_STORAGE_KEY", AZURE_KEY)
    own = azure_config("abfss://exports@me.dfs.core.windows.net/disk.vhdx")
    assert own["account_key"] == AZURE_KEY
    other = azure_config("abfss://exports@other.dfs.core.windows.net/disk.vhdx")
    assert (other["account_name"], other.get("account_key")) == ("other", None)


def test_azure_without_an_account_is_refused() -> None:
    with pytest.raises(RemoteError, match="names no storage account") as caught:
        opened("az://exports/disk.vhdx")
    assert "AZURE_STORAGE_ACCOUNT" in caught.value.hint


def test_settings_that_cannot_be_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "me")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "not base64: secret")
    with pytest.raises(RemoteError, match="cannot be asked for with what is set in the") as caught:
        opened("az://exports/disk.vhdx")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAA\n", "ü"])
def test_file_without_certificates_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ca.pem").write_text(text)
    with pytest.raises(RemoteError, match="holds no certificates in PEM") as caught:
        opened("https://host/disk.vhdx", ca_file=tmp_path / "ca.pem")
    assert caught.value.path == str(tmp_path / "ca.pem")


def test_missing_file_of_certificates_is_a_failure_of_the_host(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        opened("https://host/disk.vhdx", ca_file=tmp_path / "none.pem")
