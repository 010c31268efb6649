"""Images on the host: full disks, damaged files, images in use."""

from __future__ import annotations

from tests.system.lab import Host


def test_full_disk_leaves_no_half_image(host: Host) -> None:
    before = host.run("ls", "-A", "/var/lib/appliance/images")
    script = """
        mount -t tmpfs -o size=300k tmpfs /var/lib/appliance/images || exit 99
        appliancectl image import /var/tmp/misbehave-1.squashfs
        status=$?
        ls -A /var/lib/appliance/images
        exit $status
    """
    done = host.try_run("unshare", "--mount", "sh", "-c", script)
    assert done.returncode == 11
    assert "No space left" in done.stderr
    assert done.stdout.strip() == ""
    assert host.run("ls", "-A", "/var/lib/appliance/images") == before


def test_image_in_use_is_not_removed(host: Host, web: str) -> None:
    digest = host.appliance(web)["digest"]
    refused = host.try_run("appliancectl", "image", "remove", digest)
    assert refused.returncode == 7
    assert "web" in refused.stderr


def test_listing_showing_and_verifying(host: Host) -> None:
    names = {(image["name"], image["version"]) for image in host.json("image", "list")}
    assert {("misbehave", "1"), ("misbehave", "2"), ("crasher", "1")} <= names
    assert "misbehave" in host.run("appliancectl", "image", "show", "misbehave:2")
    host.run("appliancectl", "image", "verify", "misbehave:2")


def test_what_is_no_image_is_refused(host: Host) -> None:
    host.run(
        "sh",
        "-c",
        "cd /var/tmp; head -c 100000 /dev/urandom >noise; head -c 50000 misbehave-1.squashfs >half",
    )
    for name in ("noise", "half", "does-not-exist"):
        done = host.try_run("appliancectl", "image", "import", f"/var/tmp/{name}")
        assert done.returncode in {4, 6}, done
        assert "Traceback" not in done.stderr
