//! Databases that SQLite itself writes, and what hostile hands make of them.

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;

/// A header as rpm writes it.
fn header(fields: &[(u32, &str)], epoch: Option<u32>) -> Vec<u8> {
    let mut entries: Vec<[u32; 4]> = Vec::new();
    let mut data = Vec::new();
    let mut entry = |tag, kind, bytes: &[u8]| {
        entries.push([tag, kind, u32::try_from(data.len()).unwrap(), 1]);
        data.extend_from_slice(bytes);
    };
    if let Some(epoch) = epoch {
        entry(EPOCH, TYPE_INT32, &epoch.to_be_bytes());
    }
    for (tag, text) in fields {
        entry(*tag, TYPE_STRING, format!("{text}\0").as_bytes());
    }
    let numbers = [entries.len(), data.len()].map(|n| u32::try_from(n).unwrap());
    let words = numbers.into_iter().chain(entries.into_iter().flatten());
    let mut header: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
    header.extend(data);
    header
}

fn named(name: &str, padding: usize) -> Vec<u8> {
    let filler = "x".repeat(padding);
    let source = "openssl-3.0.7-24.el9.src.rpm";
    let fields = [
        (1004, filler.as_str()),
        (NAME, name),
        (VERSION, "3.0.7"),
        (RELEASE, "24.el9"),
        (ARCHITECTURE, "x86_64"),
        (SOURCE, source),
    ];
    header(&fields, Some(1))
}

/// The bytes of a database that SQLite itself writes.
fn database(page_size: u32, headers: &[Vec<u8>]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpmdb.sqlite");
    let connection = Connection::open(&path).unwrap();
    let begin = format!(
        "PRAGMA page_size = {page_size};
         CREATE TABLE Other (a TEXT);
         CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);
         CREATE INDEX Names ON Other (a);"
    );
    connection.execute_batch(&begin).unwrap();
    let transaction = connection.unchecked_transaction().unwrap();
    for header in headers {
        let insert = "INSERT INTO Packages (blob) VALUES (?1)";
        connection.execute(insert, [header]).unwrap();
    }
    transaction.commit().unwrap();
    drop(connection);
    std::fs::read(path).unwrap()
}

#[test]
fn what_sqlite_wrote_is_read_at_every_size() {
    for page_size in [512, 4_096, 65_536] {
        let headers: Vec<_> = (0..300)
            .map(|n| named(&format!("p{n:03}"), n * n))
            .collect();
        let packages = rpm(&database(page_size, &headers)).unwrap();
        assert_eq!(packages.len(), 300, "{page_size}");
        for (n, package) in packages.iter().enumerate() {
            let wanted = Package {
                name: format!("p{n:03}"),
                version: "1:3.0.7-24.el9".to_owned(),
                architecture: "x86_64".to_owned(),
                source: Some("openssl".to_owned()),
            };
            assert_eq!(*package, wanted, "{page_size}");
        }
    }
}

#[test]
fn keys_of_signers_are_no_packages() {
    let headers = [named("gpg-pubkey", 0), named("openssl", 0)];
    let packages = rpm(&database(4_096, &headers)).unwrap();
    assert_eq!(packages.len(), 1);
    assert_eq!(packages[0].source, None);
}

#[test]
fn a_page_that_leads_back_is_an_end() {
    let headers: Vec<_> = (0..2_000).map(|n| named(&format!("p{n}"), 0)).collect();
    let mut bytes = database(512, &headers);
    let pages = bytes.len() / 512;
    // Every inner page's children become the page itself.
    let mut changed = 0;
    for page in 1..pages {
        let at = page * 512;
        if bytes[at] == 5 {
            let number = u32::try_from(page + 1).unwrap();
            bytes[at + 8..at + 12].copy_from_slice(&number.to_be_bytes());
            changed += 1;
        }
    }
    assert!(changed > 0);
    assert_eq!(rpm(&bytes), Err(InvalidDatabase::Damaged));
}

#[test]
fn other_files_are_refused() {
    assert_eq!(rpm(b"hello"), Err(InvalidDatabase::Magic));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("CREATE TABLE a (b); CREATE VIEW Packages AS SELECT 1, b FROM a")
        .unwrap();
    drop(connection);
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(rpm(&bytes), Err(InvalidDatabase::NoTable));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_bytes_are_too_hostile(changes in proptest::collection::vec((0_usize..1_000_000, any::<u8>()), 1..40)) {
        let headers: Vec<_> = (0..60).map(|n| named(&format!("p{n}"), n * 20)).collect();
        thread_local! {
            static WHOLE: std::cell::OnceCell<Vec<u8>> = const { std::cell::OnceCell::new() };
        }
        let mut bytes = WHOLE.with(|whole| whole.get_or_init(|| database(512, &headers)).clone());
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(packages) = rpm(&bytes) {
            prop_assert!(packages.len() <= 61);
        }
    }
}
