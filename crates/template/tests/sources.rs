//! Every kind of source, as the tools that write them do.
#![allow(
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

mod common;

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use common::{Archive, Scratch, content, packed_by, scratch, told};
use composefs::digest::{Digest, Sha256};
use serde_json::json;
use template::manifest::{FirstBoot, InitKind, PackageManager, Source};
use template::{ImportError, ImportSource, InvalidSource};

const OS_RELEASE: &str = "PRETTY_NAME=\"Alpine Linux v3.20\"\nID=alpine\nVERSION_ID=3.20.1\n";

/// The beginning of an ELF program for 64-bit ARM.
fn elf() -> Vec<u8> {
    let mut bytes = content(9, 4_000);
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18..20].copy_from_slice(&183_u16.to_le_bytes());
    bytes
}

/// A tree like Alpine's.
fn alpine(prefix: &str) -> Archive {
    let at = |name: &str| format!("{prefix}{name}");
    Archive::new()
        .directory(&at("bin"))
        .file(&at("bin/busybox"), &elf())
        .symlink(&at("bin/sh"), "/bin/busybox")
        .symlink(&at("sbin/init"), "/bin/busybox")
        .file(&at("sbin/openrc"), &content(1, 500))
        .file(&at("etc/os-release"), OS_RELEASE.as_bytes())
        .file(
            &at("lib/apk/db/installed"),
            b"P:musl\nV:1.2.5-r0\n\nP:busybox\nV:1.36-r29\n",
        )
        .file(&at("etc/hard"), b"some text that two names have")
        .hard_link(&at("etc/link"), &at("etc/hard"))
}

fn check_alpine(scratch: &Scratch, manifest: &template::Manifest) {
    assert_eq!(manifest.distribution.id.as_deref(), Some("alpine"));
    assert_eq!(manifest.distribution.version.as_deref(), Some("3.20.1"));
    assert_eq!(manifest.architecture, "arm64");
    let init = manifest.init.as_ref().unwrap();
    assert_eq!(
        (&init.kind, init.path.as_str()),
        (&InitKind::OpenRc, "/sbin/init")
    );
    assert_eq!(manifest.packages.manager, PackageManager::Apk);
    assert_eq!(manifest.packages.list[0].name, "busybox");
    assert_eq!(manifest.packages.list[1].version, "1.2.5-r0");
    let line = scratch.line(&manifest.name, "/etc/link").unwrap();
    let fields: Vec<&str> = line.split(' ').collect();
    assert!(fields[2].starts_with('@') || fields[3] == "2", "{line}");
}

#[test]
fn plain_and_compressed_archives_are_one_tree() {
    let scratch = scratch();
    let plain = alpine("./").finish();
    let path = scratch.path("tree.tar");
    std::fs::write(&path, &plain).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    std::fs::write(scratch.path("tree.gz"), gzip.finish().unwrap()).unwrap();
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    std::fs::write(scratch.path("tree.zst"), zstd).unwrap();
    let mut files = vec!["tree.tar", "tree.gz", "tree.zst"];
    if packed_by("xz", &path) {
        files.push("tree.tar.xz");
    }
    let mut versions = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let source = ImportSource::detect(scratch.path(file).to_str().unwrap()).unwrap();
        assert_eq!(source, ImportSource::Tar(scratch.path(file)));
        let manifest = scratch.import(&format!("t{number}"), source).unwrap();
        check_alpine(&scratch, &manifest);
        versions.push(manifest.version);
    }
    versions.dedup();
    assert_eq!(versions.len(), 1);
}

#[test]
fn damaged_compression_is_named() {
    let scratch = scratch();
    let plain = alpine("").finish();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    for whole in [gzip, zstd] {
        let path = scratch.path("cut");
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = scratch.import("bad", ImportSource::Tar(path)).unwrap_err();
        assert!(
            matches!(error, ImportError::Damaged { .. }),
            "{}",
            told(&error)
        );
    }
    for (head, word) in [
        (&b"BZh91AY"[..], "bunzip2"),
        (b"PK\x03\x04", "zip"),
        (b"hsqs", "unsquashfs"),
    ] {
        let path = scratch.path("other");
        std::fs::write(&path, head).unwrap();
        let error = scratch.import("bad", ImportSource::Tar(path)).unwrap_err();
        assert!(told(&error).contains(word), "{}", told(&error));
    }
}

#[test]
fn folders_are_read_without_following_links() {
    let scratch = scratch();
    let root = scratch.path("root");
    std::fs::create_dir_all(root.join("etc/ssh")).unwrap();
    std::fs::create_dir_all(root.join("usr/sbin")).unwrap();
    std::fs::write(
        root.join("etc/machine-id"),
        "0123456789abcdef0123456789abcdef\n",
    )
    .unwrap();
    std::fs::write(root.join("etc/ssh/ssh_host_rsa_key"), "secret").unwrap();
    std::fs::write(root.join("usr/sbin/sshd"), content(1, 300_000)).unwrap();
    std::fs::set_permissions(
        root.join("usr/sbin/sshd"),
        PermissionsExt::from_mode(0o4755),
    )
    .unwrap();
    std::fs::hard_link(root.join("usr/sbin/sshd"), root.join("usr/sbin/sshd-2")).unwrap();
    symlink("/etc/shadow", root.join("etc/escape")).unwrap();
    symlink("/", root.join("etc/root")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("etc/socket")).unwrap();
    let manifest = scratch
        .import("folder", ImportSource::Directory(root))
        .unwrap();
    assert_eq!(
        manifest.first_boot,
        [FirstBoot::MachineId, FirstBoot::SshHostKeys]
    );
    assert_eq!(manifest.sizes.content_bytes, 300_000);
    let expected = [
        "/etc",
        "/etc/escape",
        "/etc/machine-id",
        "/etc/root",
        "/etc/ssh",
        "/usr",
        "/usr/sbin",
        "/usr/sbin/sshd",
        "/usr/sbin/sshd-2",
    ];
    assert_eq!(scratch.paths("folder"), expected);
    let line = scratch.line("folder", "/etc/machine-id").unwrap();
    assert!(line.starts_with("/etc/machine-id 0 "), "{line}");
    assert!(manifest.notes.iter().any(|note| note == "socket left out"));
    assert!(
        manifest
            .notes
            .iter()
            .any(|note| note.contains("ssh_host_rsa_key` removed"))
    );
    assert!(
        manifest
            .notes
            .iter()
            .any(|note| note.contains("no first program"))
    );
}

#[test]
fn lxc_images_are_read() {
    let scratch = scratch();
    let metadata = "architecture: aarch64\ncreation_date: 1700000000\nproperties:\n  \
                    description: Alpine 3.20\n  os: \"Alpine\"\ntemplates:\n  /etc/hostname:\n    when:\n    - create\n";
    let archive = alpine("rootfs/").file("metadata.yaml", metadata.as_bytes());
    let path = scratch.path("unified.tar");
    std::fs::write(&path, archive.finish()).unwrap();
    let source = ImportSource::detect(path.to_str().unwrap()).unwrap();
    assert!(matches!(
        source,
        ImportSource::LxcImage { metadata: None, .. }
    ));
    let manifest = scratch.import("unified", source).unwrap();
    check_alpine(&scratch, &manifest);
    let Source::Lxc { properties, .. } = &manifest.source else {
        panic!("{:?}", manifest.source);
    };
    assert_eq!(properties["os"], "Alpine");
    assert_eq!(properties["architecture"], "aarch64");
    assert!(!properties.contains_key("when"));

    let rootfs = scratch.path("rootfs.tar");
    std::fs::write(&rootfs, alpine("").finish()).unwrap();
    let meta = scratch.path("meta.tar");
    let archive = Archive::new().file("metadata.yaml", metadata.as_bytes());
    std::fs::write(&meta, archive.finish()).unwrap();
    let source = ImportSource::LxcImage {
        rootfs: rootfs.clone(),
        metadata: Some(meta),
    };
    let split = scratch.import("split", source).unwrap();
    assert_eq!(split.version, manifest.version);

    let source = ImportSource::LxcImage {
        rootfs,
        metadata: None,
    };
    let error = scratch.import("bad", source).unwrap_err();
    assert!(told(&error).contains("no `rootfs/`"), "{}", told(&error));
}

#[test]
fn split_images_are_recognised_by_their_names() {
    let scratch = scratch();
    let folder = scratch.path("image");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("rootfs.tar.xz"), "").unwrap();
    std::fs::write(folder.join("meta.tar.xz"), "").unwrap();
    let source = ImportSource::detect(folder.to_str().unwrap()).unwrap();
    let expected = ImportSource::LxcImage {
        rootfs: folder.join("rootfs.tar.xz"),
        metadata: Some(folder.join("meta.tar.xz")),
    };
    assert_eq!(source, expected);
}

#[test]
fn squashfs_images_are_read() {
    let scratch = scratch();
    let root = scratch.path("root");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/os-release"), OS_RELEASE).unwrap();
    std::fs::write(root.join("etc/file"), content(1, 50_000)).unwrap();
    let image = scratch.path("rootfs.squashfs");
    let packed = std::process::Command::new("mksquashfs")
        .args([&root, &image])
        .args(["-quiet", "-no-progress"])
        .stdout(std::process::Stdio::null())
        .status();
    if !packed.is_ok_and(|status| status.success()) {
        println!("skipped: `mksquashfs` (package squashfs-tools) does not run");
        return;
    }
    let meta = scratch.path("meta.tar");
    let archive = Archive::new().file("metadata.yaml", b"architecture: x86_64\n");
    std::fs::write(&meta, archive.finish()).unwrap();
    let source = ImportSource::LxcImage {
        rootfs: image,
        metadata: Some(meta),
    };
    let manifest = scratch.import("squashed", source).unwrap();
    assert_eq!(
        scratch.paths("squashed"),
        ["/etc", "/etc/file", "/etc/os-release"]
    );
    let folder = scratch
        .import("folder", ImportSource::Directory(root))
        .unwrap();
    assert_eq!(manifest.sizes.content_bytes, folder.sizes.content_bytes);
    assert!(scratch.staging_is_empty());
}

/// Writes a blob; gives its descriptor.
fn blob(layout: &Path, kind: &str, bytes: &[u8]) -> serde_json::Value {
    let digest: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(&digest), bytes).unwrap();
    json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() })
}

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Writes a layout of these layers, the first compressed by gzip, the others by zstd.
fn layout(path: &Path, layers: Vec<Archive>) {
    let mut descriptors = Vec::new();
    for (number, layer) in layers.into_iter().enumerate() {
        let plain = layer.finish();
        descriptors.push(if number == 0 {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&plain).unwrap();
            blob(path, &format!("{LAYER}+gzip"), &gzip.finish().unwrap())
        } else {
            blob(
                path,
                &format!("{LAYER}+zstd"),
                &zstd::encode_all(&plain[..], 1).unwrap(),
            )
        });
    }
    let config = json!({ "architecture": "amd64", "os": "linux",
        "config": { "Entrypoint": ["/sbin/init"], "Cmd": ["--log"] } });
    let config = blob(
        path,
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": descriptors });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let mut manifest = blob(path, kind, manifest.to_string().as_bytes());
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "3.20" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(path.join("index.json"), index.to_string()).unwrap();
    std::fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn layers() -> Vec<Archive> {
    let second = Archive::new()
        .file("bin/.wh.sh", b"")
        .file("etc/new", b"new")
        .file("var/.wh..wh..opq", b"")
        .file("var/kept", b"new");
    let third = Archive::new()
        .file("var/cache/fresh", b"new")
        .file("opt/.wh.gone", b"")
        .directory("opt/gone")
        .file("opt/gone/again", b"x")
        .file("etc/.wh.hard", b"");
    let first = alpine("")
        .file("var/lib/old", b"old")
        .file("var/kept", b"old")
        .file("opt/gone/old", b"old");
    vec![first, second, third]
}

#[test]
fn oci_layers_hide_what_lies_below_them() {
    let scratch = scratch();
    let folder = scratch.path("layout");
    std::fs::create_dir(&folder).unwrap();
    layout(&folder, layers());
    let text = format!("oci:{}:3.20", folder.display());
    let source = ImportSource::detect(&text).unwrap();
    let manifest = scratch.import("oci", source).unwrap();
    let paths = scratch.paths("oci");
    for there in [
        "/bin/busybox",
        "/etc/new",
        "/etc/link",
        "/var/kept",
        "/var/cache/fresh",
        "/opt/gone/again",
    ] {
        assert!(
            paths.iter().any(|path| path == there),
            "{there} in {paths:?}"
        );
    }
    for gone in ["/bin/sh", "/var/lib", "/opt/gone/old", "/etc/hard"] {
        assert!(
            !paths.iter().any(|path| path == gone),
            "{gone} in {paths:?}"
        );
    }
    assert!(!paths.iter().any(|path| path.contains(".wh.")), "{paths:?}");
    assert!(scratch.line("oci", "/var/kept").unwrap().contains(" new "));
    let Source::Oci {
        reference,
        entrypoint,
        ..
    } = manifest.source
    else {
        panic!("{:?}", manifest.source);
    };
    assert_eq!(reference.as_deref(), Some("3.20"));
    assert_eq!(entrypoint, ["/sbin/init", "--log"]);

    // The same layout as one archive.
    let archive = scratch.path("layout.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    builder.append_dir_all("", &folder).unwrap();
    builder.finish().unwrap();
    let source = ImportSource::detect(archive.to_str().unwrap()).unwrap();
    assert!(
        matches!(source, ImportSource::OciLayout { .. }),
        "{source:?}"
    );
    assert_eq!(
        scratch.import("archive", source).unwrap().version,
        manifest.version
    );
}

#[test]
fn oci_layouts_that_lie_are_refused() {
    let scratch = scratch();
    let folder = scratch.path("layout");
    std::fs::create_dir(&folder).unwrap();
    layout(&folder, layers());
    let import = |tag: Option<&str>| {
        let source = ImportSource::OciLayout {
            path: folder.clone(),
            reference: tag.map(str::to_owned),
        };
        told(&scratch.import("bad", source).unwrap_err())
    };
    assert!(import(Some("9")).contains("no image is tagged `9`"));
    for entry in std::fs::read_dir(folder.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes[..4] == [0x28, 0xb5, 0x2f, 0xfd] {
            bytes.push(0);
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let message = import(None);
    assert!(
        message.contains("is not what its digest says") || message.contains("damaged"),
        "{message}"
    );
    let index = json!({ "manifests": [{ "digest": "sha256:../../../etc/passwd", "size": 1 }] });
    std::fs::write(folder.join("index.json"), index.to_string()).unwrap();
    assert!(import(None).contains("is no SHA-256 digest"));
    std::fs::write(folder.join("index.json"), "{").unwrap();
    assert!(import(None).contains("index.json is malformed"));
    assert!(scratch.staging_is_empty());
}

#[test]
fn registries_are_for_later() {
    let error = ImportSource::detect("oci:docker.io/library/alpine:3.20").unwrap_err();
    assert!(matches!(error, InvalidSource::Registry { .. }));
    assert!(error.to_string().contains("skopeo copy"), "{error}");
    let error = ImportSource::detect("/no/such").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot import `/no/such`: there is no such file or folder"
    );
}
