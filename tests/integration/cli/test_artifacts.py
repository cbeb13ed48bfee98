"""What is stored like an image and is none (OCI image spec 1.1, "Guidelines for Artifact Usage").

It comes from Debian's docker-registry, and goes to another.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from orlop.oci import reference
from orlop.oci.descriptor import Descriptor
from orlop.registry import Http, RegistryClient
from tests.daemon_fixture import Orlopd
from tests.lying_registry import INDEX, MANIFEST, digest_of
from tests.registry_fixture import run_registry

pytestmark = pytest.mark.root

EMPTY = "application/vnd.oci.empty.v1+json"
CHART = "application/vnd.example.chart.v1"


class Pier:
    """Puts things into a repository as they are."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder

    def blob(self, data: bytes, media_type: str) -> dict[str, object]:
        file = self._folder / "blob"
        file.write_bytes(data)
        wanted = Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))
        fd = os.open(file, os.O_RDONLY)
        try:
            with Http() as http:
                client = RegistryClient(reference.parse(self._name), http=http)
                client.uploads().blob(wanted, fd, sent=lambda _: None)
        finally:
            os.close(fd)
        return {"mediaType": media_type, "digest": wanted.digest, "size": wanted.size}

    def manifest(self, document: dict[str, object], tag: str = "") -> dict[str, object]:
        data = json.dumps(document).encode()
        kind = str(document["mediaType"])
        with Http() as http:
            client = RegistryClient(reference.parse(self._name), http=http)
            client.uploads().manifest(tag or digest_of(data), data, kind)
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    def artifact(self, tag: str = "", content: bytes = b"a chart") -> dict[str, object]:
        return self.manifest(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": CHART,
                "config": self.blob(b"{}", EMPTY),
                "layers": [self.blob(content, "text/x-chart")],
            },
            tag,
        )


def _raw(name: str) -> bytes:
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout


def test_an_artifact_comes_and_goes_as_it_is(orlopd: Orlopd, registry: str, tmp_path: Path) -> None:
    name = f"{registry}/test/chart:1"
    digest = Pier(name, tmp_path).artifact("1")["digest"]
    orlopd.orlop("pull", name)
    assert name in orlopd.orlop("image", "ls").stdout
    (shown,) = json.loads(orlopd.orlop("image", "inspect", name).stdout)
    assert shown["digest"] == digest
    (only,) = shown["platforms"]
    assert only["complete"]
    assert only["layers"][0]["media_type"] == "text/x-chart"
    assert json.loads(orlopd.orlop("manifest", "inspect", name).stdout)["artifactType"] == CHART
    refused = orlopd.orlop("run", "--rm", name, "true", check=False)
    assert refused.returncode != 0
    assert f'"{name}" is no image that can run: it is a "{CHART}"' in refused.stderr
    assert refused.stderr.count("\n") == 1

    archive = tmp_path / "chart.tar"
    orlopd.orlop("save", "-q", "--all-platforms", "-o", str(archive), name)
    orlopd.orlop("rmi", name)
    assert orlopd.orlop("load", "-q", "-i", str(archive)).stdout == f"{name}\n"
    (tmp_path / "other").mkdir()
    with run_registry(tmp_path / "other") as other:
        orlopd.orlop("push", "-q", name, f"{other}/kept/chart:1")
        assert digest_of(_raw(f"{other}/kept/chart:1")) == digest


def test_an_index_with_more_than_images(orlopd: Orlopd, registry: str, tmp_path: Path) -> None:
    name = f"{registry}/test/mixed:1"
    pier = Pier(name, tmp_path)
    source = f"docker://{registry}/test/busybox:latest"
    subprocess.run(
        ["skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false",
         "--insecure-policy", source, f"docker://{registry}/test/mixed:image"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    raw = _raw(f"{registry}/test/mixed:image")
    runs = {"mediaType": MANIFEST, "digest": digest_of(raw), "size": len(raw),
            "platform": {"os": "linux", "architecture": "amd64"}}  # fmt: skip
    artifact = {**pier.artifact(content=b"beside"), "artifactType": CHART}
    index = pier.manifest(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [runs, artifact]}, "1"
    )
    orlopd.orlop("pull", "--all-platforms", name)
    (shown,) = json.loads(orlopd.orlop("image", "inspect", name).stdout)
    assert shown["digest"] == index["digest"]
    assert [each["digest"] for each in shown["platforms"]] == [runs["digest"], artifact["digest"]]
    assert orlopd.orlop("run", "--rm", name, "echo", "hi").stdout == "hi\n"
