//! What a VE may open and change in its group, on the control groups of this host.

#[cfg(test)]
mod common;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use kernel::device_program::{DeviceProgram, count_attached};

    use super::common::*;

    #[test]
    fn only_the_devices_of_the_table_open() {
        let Some(node) = Node::open(61_100) else {
            return;
        };
        let group = node.group.create(id(61_101)).unwrap();
        let script = "for d in null zero full random urandom kmsg mem loop-control; do \
             (: < /dev/$d) 2>/dev/null && echo $d; done";
        let open = output(&group, script);
        assert_eq!(
            open.split_whitespace().collect::<Vec<_>>(),
            ["null", "zero", "full", "random", "urandom"]
        );
    }

    /// On v2 this is what the previous test goes through; on a hybrid host cgroup2 takes programs too.
    #[test]
    fn the_device_program_denies_in_a_cgroup2() {
        let Some(node) = Node::open(61_200) else {
            return;
        };
        let group = node.group.create(id(61_201)).unwrap();
        let Some(unified) = group.unified_path() else {
            println!("not run: no cgroup2 is mounted");
            return;
        };
        let directory = std::fs::File::open(&unified).unwrap();
        let rules: Vec<_> = cgroup::ALLOWED.iter().map(|device| device.rule).collect();
        let before = count_attached(directory.as_fd()).unwrap();
        DeviceProgram::load(&rules)
            .unwrap()
            .attach(directory.as_fd())
            .unwrap();
        assert_eq!(count_attached(directory.as_fd()).unwrap(), before + 1);
        // Only cgroup2, so that v1 has no say.
        let script = format!(
            "echo 0 > {}/cgroup.procs; for d in null kmsg urandom mem; do \
             (: < /dev/$d) 2>/dev/null && echo $d; done",
            unified.display()
        );
        let output = Command::new("/bin/sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "null\nurandom\n");
    }

    #[test]
    fn the_ve_manages_its_own_groups_and_no_limit() {
        let Some(node) = Node::open(61_300) else {
            return;
        };
        let ve = id(61_301);
        let group = node.group.create(ve).unwrap();
        let Some(unified) = group.unified_path() else {
            println!("not run: no cgroup2 is mounted");
            return;
        };
        let inside = |script: &str| {
            let script = script.replace('\'', "'\\''");
            let (uid, unified) = (ve.uid_base().get(), unified.display());
            let text = format!(
                "cd {unified} && exec setpriv --reuid {uid} --regid {uid} --clear-groups \
                 --bounding-set -all --inh-caps -all sh -c '{script}'"
            );
            output(&group, &text)
        };
        let made = inside(
            "mkdir -p init.scope a/b && echo $$ > init.scope/cgroup.procs && \
             echo $$ > a/b/cgroup.procs && grep ^0:: /proc/self/cgroup",
        );
        assert!(made.trim_end().ends_with("/a/b"), "{made}");
        let written = inside(
            "for f in *; do [ -d $f ] || { [ -w $f ] && echo $f; }; done 2>/dev/null; echo end",
        );
        let mut names: Vec<_> = written.split_whitespace().collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "cgroup.procs",
                "cgroup.subtree_control",
                "cgroup.threads",
                "end"
            ]
        );
        let outside =
            inside("mkdir ../x 2>/dev/null || echo no; echo $$ > ../cgroup.procs || echo no");
        assert_eq!(outside.matches("no").count(), 2, "{outside}");
        // What comes in from outside has a group of its own, also after the VE removed it.
        for _ in 0..2 {
            let entry = group.exec_entry().unwrap();
            let output = run_in(&entry, "grep ^0:: /proc/self/cgroup")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.trim_end().ends_with("/61301/vessel-exec"), "{text}");
            inside("rmdir vessel-exec");
        }
        // With controllers for the groups below, the VE's own group takes no process any more; what
        // comes in from outside still finds its place.
        let enabled = inside(
            "mkdir -p init.scope && echo $$ > init.scope/cgroup.procs && \
             for c in $(cat cgroup.controllers); do echo +$c > cgroup.subtree_control; done; \
             cat cgroup.subtree_control",
        );
        let offered = std::fs::read_to_string(unified.join("cgroup.controllers")).unwrap();
        assert_eq!(enabled.trim(), offered.trim());
        let entry = group.exec_entry().unwrap();
        assert!(run_in(&entry, "exit 0").status().unwrap().success());
    }
}
