//! The server on a real connection to the kernel, and on real control groups.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    reason = "tests"
)]

mod common;

use std::fs;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Ending, Stage, enter, meminfo, read_in_pieces, until};
use kernel::packet;
use procview::PLACES;
use procview::control::{Notice, Order, socket_path};

#[test]
fn a_ve_has_its_own_numbers_and_a_change_shows_at_once() {
    let Some(stage) = Stage::new(50_100, 2) else {
        return;
    };
    let host = fs::read_to_string("/proc/meminfo").unwrap();
    let host_total = meminfo(&host, "MemTotal");
    assert_eq!(meminfo(&stage.read(0, "meminfo"), "MemTotal"), host_total);
    for mebibytes in [64_u64, 128] {
        let limits = cgroup::Limits {
            memory_limit_bytes: Some(mebibytes << 20),
            cpu_limit_millicores: Some(500),
            ..cgroup::Limits::default()
        };
        stage.limit(0, &limits);
        let set = Instant::now();
        until("the limit shows", || {
            meminfo(&stage.read(0, "meminfo"), "MemTotal") == mebibytes << 10
        });
        assert!(
            set.elapsed() < Duration::from_millis(100),
            "{:?}",
            set.elapsed()
        );
        until("one processor shows", || {
            stage.read(0, "cpu/online") == "0\n"
        });
        assert_eq!(stage.read(0, "cpuinfo").matches("processor\t").count(), 1);
        assert_eq!(stage.read(0, "stat").matches("\ncpu").count(), 1);
        // The other VE is another.
        assert_eq!(meminfo(&stage.read(1, "meminfo"), "MemTotal"), host_total);
        let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
        assert_eq!(stage.read(1, "cpu/online"), online);
    }
}

#[test]
fn memory_load_and_time_are_those_of_the_processes() {
    let Some(stage) = Stage::new(50_110, 2) else {
        return;
    };
    stage.begin();
    // Keeps 30 MiB, and burns a processor.
    let keep = "x=$(head -c 30000000 /dev/zero | tr '\\0' x); while :; do :; done";
    let _worker = enter(&stage.ves[0], keep);
    until("the memory is used", || {
        let text = stage.read(0, "meminfo");
        meminfo(&text, "AnonPages") > 25_000
    });
    let text = stage.read(0, "meminfo");
    let used = meminfo(&text, "MemTotal") - meminfo(&text, "MemAvailable");
    assert!((25_000..200_000).contains(&used), "{text}");
    let numbers = |name: &str| -> Vec<f64> {
        let text = stage.read(0, name);
        text.split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()
    };
    until("the load rises", || numbers("loadavg")[0] > 0.05);
    assert_eq!(&stage.read(1, "loadavg")[..14], "0.00 0.00 0.00");
    assert!(numbers("stat")[0] > 10.0);
    let (uptime, idle) = (numbers("uptime")[0], numbers("uptime")[1]);
    let processors = fs::read_to_string("/proc/cpuinfo")
        .unwrap()
        .matches("processor\t")
        .count();
    let most = uptime * f64::from(u32::try_from(processors).unwrap());
    assert!(uptime > 0.0 && uptime < 600.0, "{uptime}");
    // The worker began after this process did, which stands for the init here.
    assert!(idle > 0.0 && idle <= most, "{idle} of {most}");
    // The one who burns, and the reader; whoever filled the memory has ended by then, or does soon.
    until("one burns", || {
        stage.read(0, "stat").contains("procs_running 2\n")
    });
}

#[test]
fn every_file_reads_alike_in_pieces_and_by_every_program() {
    let Some(stage) = Stage::new(50_120, 1) else {
        return;
    };
    stage.begin();
    for place in PLACES {
        let path = stage.path(0, place.name);
        if path.is_dir() {
            assert!(
                fs::read_dir(&path).unwrap().count() > 1,
                "{}",
                path.display()
            );
            continue;
        }
        for size in [1, 7, 4_096] {
            let text = read_in_pieces(&path, size);
            let whole = fs::read_to_string(&path).unwrap();
            let shape = |text: &str| {
                text.lines()
                    .map(|l| l.split(' ').count())
                    .collect::<Vec<_>>()
            };
            assert_eq!(shape(&text), shape(&whole), "{} by {size}", place.name);
        }
    }
    let meminfo = stage.path(0, "meminfo");
    let copies = stage.root().join("copies");
    fs::create_dir(&copies).unwrap();
    // cp uses copy_file_range, busybox sendfile, dd plain reads of its own size.
    for (name, script) in [
        ("cat", "cat $IN > $OUT"),
        ("cp", "cp $IN $OUT"),
        ("dd", "dd if=$IN of=$OUT bs=100 2>/dev/null"),
        ("busybox", "busybox cat $IN > $OUT"),
        ("splice", "busybox cat $IN | cat > $OUT"),
        ("tail", "tail -n 100 $IN > $OUT"),
        ("busybox-tail", "busybox tail -n 100 $IN > $OUT"),
        (
            "wc",
            "test $(wc -c < $IN) -eq $(cat $IN | wc -c) && cat $IN > $OUT",
        ),
    ] {
        let out = copies.join(name);
        let mut sh = Command::new("sh");
        sh.args(["-c", script]).env("IN", &meminfo).env("OUT", &out);
        if script.contains("busybox") && Command::new("busybox").arg("true").status().is_err() {
            println!("not tried: this machine has no busybox");
            continue;
        }
        assert!(sh.status().unwrap().success(), "{script}");
        let text = fs::read_to_string(&out).unwrap();
        assert!(
            text.ends_with("Hugepagesize:       2048 kB\n") || !cfg!(target_arch = "x86_64"),
            "{name}: {text}"
        );
        assert_eq!(
            text.lines().count(),
            fs::read_to_string(&meminfo).unwrap().lines().count()
        );
    }
}

#[test]
fn processors_are_folders_that_come_and_go() {
    let Some(stage) = Stage::new(50_130, 1) else {
        return;
    };
    let names = || -> Vec<String> {
        let entries = fs::read_dir(stage.path(0, "cpu")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.starts_with("cpu")).collect();
        names.sort();
        names
    };
    let all = names();
    assert!(!all.is_empty());
    assert_eq!(
        stage.read(0, "cpu/cpu0/topology/core_id"),
        fs::read_to_string("/sys/devices/system/cpu/cpu0/topology/core_id").unwrap()
    );
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    let limits = cgroup::Limits {
        cpu_limit_millicores: Some(900),
        ..cgroup::Limits::default()
    };
    stage.limit(0, &limits);
    until("only one is left", || names() == ["cpu0"]);
    assert_eq!(stage.read(0, "cpu/possible"), possible);
    let other = stage.path(0, "cpu/cpu1");
    assert!(!other.exists());
    stage.limit(0, &cgroup::Limits::default());
    until("all are back", || names() == all);
    assert_eq!(other.exists(), all.len() > 1);
}

#[test]
fn nothing_can_be_written_or_found_that_is_not_there() {
    let Some(stage) = Stage::new(50_140, 1) else {
        return;
    };
    let kind = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
    let meminfo = stage.path(0, "meminfo");
    assert!(fs::write(&meminfo, "x").is_err());
    assert!(fs::remove_file(&meminfo).is_err());
    assert!(fs::create_dir(stage.path(0, "new")).is_err());
    assert!(fs::rename(&meminfo, stage.path(0, "other")).is_err());
    let missing = Some(rustix::io::Errno::NOENT.raw_os_error());
    for name in [
        "nothing",
        "cpu/cpu9999",
        "cpu/cpu00",
        "cpu/cpu-1",
        "cpu/cpu",
        "stat/x/y",
    ] {
        let path = stage.path(0, name);
        assert!(fs::metadata(&path).is_err(), "{}", path.display());
    }
    let nobody = stage.root().join("mnt/65000/meminfo");
    assert_eq!(kind(fs::metadata(nobody).map(drop)), missing);
    let same = stage.root().join(format!("mnt/0{}", stage.first_id + 1));
    assert_eq!(kind(fs::metadata(same).map(drop)), missing);
    // The length of a file is a guess that stays: CRIU opens none again whose length is another.
    let length = |name: &str| fs::metadata(stage.path(0, name)).unwrap().len();
    assert_eq!((length("uptime"), length("stat")), (65_536, 65_536));
    assert_eq!(length("cpu/online"), 4_096);
}

/// Fifty readers, and a server that dies all the time: no error, no hang.
#[test]
fn a_killed_server_is_noticed_by_no_reader() {
    let Some(mut stage) = Stage::new(50_150, 2) else {
        return;
    };
    stage.begin();
    stage.hear_history();
    let ended = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    let longest = AtomicU64::new(0);
    let paths: Vec<_> = (0..50)
        .map(|n| {
            stage.path(
                n % 2,
                ["meminfo", "stat", "loadavg", "uptime", "cpu/online"][n % 5],
            )
        })
        .collect();
    std::thread::scope(|scope| {
        let _ending = Ending(&ended);
        let (ended, reads, longest) = (&ended, &reads, &longest);
        for path in &paths {
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let text = fs::read_to_string(path);
                    let text = text.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                    assert!(text.ends_with('\n'), "{}: {text:?}", path.display());
                    reads.fetch_add(1, Ordering::Relaxed);
                    let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
                    longest.fetch_max(took, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
        }
        for round in 0..40_u64 {
            // Each has answered something: on a slow machine it takes a while to start.
            let before = reads.load(Ordering::Relaxed);
            until("it answers", || reads.load(Ordering::Relaxed) > before);
            std::thread::sleep(Duration::from_millis(10 + 7 * (round % 5)));
            stage.kill();
            stage.start(String::new());
        }
        std::thread::sleep(Duration::from_millis(50));
    });
    let (reads, longest) = (reads.into_inner(), longest.into_inner());
    println!("{reads} reads, the longest took {longest} ms");
    assert!(reads >= 40);
    assert!(longest < 5_000, "{longest} ms");
}

/// Load averages and idle time are known to the next server.
#[test]
fn what_was_known_is_handed_on() {
    let Some(mut stage) = Stage::new(50_160, 1) else {
        return;
    };
    let init = stage.begin();
    let worker = enter(&stage.ves[0], "while :; do :; done");
    let load = |stage: &Stage| -> f64 { stage.read(0, "loadavg")[..4].parse().unwrap() };
    until("the load rises", || load(&stage) > 0.05);
    drop(worker);
    let history = loop {
        let history = stage.hear_history();
        let average = history
            .split(' ')
            .nth(3)
            .and_then(|word| word.parse::<u64>().ok());
        if average.is_some_and(|average| average > 100) {
            break history;
        }
    };
    stage.kill();
    stage.start(history);
    stage.tell(&Order::Ve(init));
    assert!(load(&stage) > 0.02, "{}", load(&stage));

    // A launcher that comes later takes everything from the server itself.
    let path = socket_path(stage.root());
    let (family, kind) = (
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
    );
    let visitor = rustix::net::socket(family, kind, None).unwrap();
    let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
    rustix::net::connect(&visitor, &address).unwrap();
    packet::send(
        &visitor,
        &serde_json::to_vec(&Order::HandOver).unwrap(),
        &[],
    )
    .unwrap();
    let handed = packet::receive(visitor.as_fd()).unwrap().unwrap();
    let Notice::Handed { first_id, history } = serde_json::from_slice(&handed.bytes).unwrap()
    else {
        panic!("another answer");
    };
    assert_eq!((first_id, handed.descriptors.len()), (stage.first_id, 2));
    assert!(stage.server.take().unwrap().wait().unwrap().success());
    let mut given = handed.descriptors.into_iter();
    stage.file_system.device = given.next().unwrap();
    stage.start(history);
    assert!(load(&stage) > 0.02, "{}", load(&stage));
}

/// One VE asks as fast as it can, with many; another's reads are not slower for it by much.
#[test]
fn a_flood_in_one_ve_does_not_hold_up_another() {
    let Some(stage) = Stage::new(50_170, 2) else {
        return;
    };
    stage.hear_history();
    let victim = stage.path(1, "stat");
    let median = || {
        let mut took: Vec<Duration> = (0..200)
            .map(|_| {
                let begun = Instant::now();
                fs::read_to_string(&victim).unwrap();
                begun.elapsed()
            })
            .collect();
        took.sort();
        took[100]
    };
    let quiet = median();
    let ended = AtomicBool::new(false);
    let flood = AtomicU64::new(0);
    let begun = Instant::now();
    let disturbed = std::thread::scope(|scope| {
        let _ending = Ending(&ended);
        for _ in 0..64 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    fs::read_to_string(stage.path(0, "stat")).unwrap();
                    flood.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_secs(4));
        median()
    });
    let rate = flood.into_inner() / begun.elapsed().as_secs().max(1);
    println!("quiet {quiet:?}, disturbed {disturbed:?}, the flood reads {rate} files a second");
    assert!(disturbed < quiet * 20 + Duration::from_millis(20));
    assert!(rate < 10_000, "the flood is not held back: {rate}");
}

/// Opens without reading, reads at nonsense offsets, files kept open: nothing is kept, nothing fails.
#[test]
fn what_is_opened_and_never_read_costs_the_server_nothing() {
    let Some(stage) = Stage::new(50_180, 2) else {
        return;
    };
    stage.hear_history();
    let pid = stage.server.as_ref().unwrap().id();
    let memory = || -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
    };
    let before = memory();
    let mut kept = Vec::new();
    for n in 0..800_u64 {
        let file = fs::File::open(stage.path(0, "stat")).unwrap();
        let mut piece = [0; 64];
        for offset in [1 << 62, 1 << 40, n] {
            std::os::unix::fs::FileExt::read_at(&file, &mut piece, offset).unwrap();
        }
        kept.push(file);
    }
    for n in 0..20_000 {
        let _ = fs::metadata(stage.path(0, &format!("cpu/no{n}")));
    }
    println!("{before} kB before, {} kB after", memory());
    assert!(memory() < before + 2_048);
    assert!(stage.read(1, "stat").starts_with("cpu "));
}
