//! VEs on a template: one image over one object store, shared by all.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "tests"
)]

mod common;

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;

use common::{IDLE, Node, busybox_tree};
use runtime::{CgroupEntry, Lower, RootSpec};
use template::{Cancel, Catalogue, ImportRequest, ImportSource, Session};
use ve::Name;

/// Makes a template of a tree.
fn import(node: &Node, tree: &Path) -> Lower {
    let folder = node.root().join("templates");
    fs::create_dir(&folder).unwrap();
    let catalogue = Catalogue::open(&folder).unwrap();
    let name = Name::new("busybox").unwrap();
    let request = ImportRequest {
        name: name.clone(),
        source: ImportSource::detect(tree.to_str().unwrap()).unwrap(),
    };
    let cancel = Cancel::new();
    catalogue
        .import(
            &request,
            Session {
                progress: &|_| (),
                cancel: &cancel,
            },
        )
        .unwrap();
    let layers = catalogue.open_layers(&name).unwrap();
    let path =
        |fd: BorrowedFd<'_>| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    Lower::Composefs {
        image: path(layers.image.as_fd()),
        objects: path(layers.objects.as_fd()),
    }
}

#[test]
fn ves_share_a_template_and_change_only_their_own() {
    let Some(node) = Node::start() else { return };
    let Some(tree) = busybox_tree(node.root(), IDLE) else {
        return;
    };
    let lower = import(&node, &tree);
    let pid = node.client.launcher_pid();
    let files = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = files();
    let specs = [40_400, 40_401].map(|id| {
        let spec = node.spec(id, node.root());
        let root = RootSpec {
            lower: lower.clone(),
            ..spec.root.clone()
        };
        runtime::LaunchSpec { root, ..spec }
    });
    for round in 0..2 {
        for spec in &specs {
            node.client.launch(spec, &CgroupEntry::default()).unwrap();
        }
        let root = node
            .shell(specs[0].id, "grep ' / / ' /proc/self/mountinfo")
            .1;
        assert!(
            root.contains("index=on") && root.contains("xino=on"),
            "{root}"
        );
        assert_eq!(
            node.shell(specs[0].id, "stat -c %u:%g /etc/passwd").1,
            "0:0\n"
        );
        assert_eq!(
            node.shell(
                specs[0].id,
                "echo mine >>/etc/passwd && tail -1 /etc/passwd"
            )
            .1,
            "mine\n"
        );
        assert!(
            !node
                .shell(specs[1].id, "cat /etc/passwd")
                .1
                .contains("mine")
        );
        let mark = format!("ls /tmp; touch /tmp/{round}");
        node.shell(specs[1].id, &mark);
        for spec in &specs {
            node.client.kill(spec.id).unwrap();
            node.wait_exit(spec.id);
        }
    }
    assert_eq!(files(), before, "the image is let go of with its last VE");
}
