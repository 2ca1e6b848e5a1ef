//! Whatever bytes come in, reading ends, with members or with an error.

use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;

/// An archive with long names, attributes, a sparse file and a link.
fn archive() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(700);
    let long = "directory/".repeat(15) + "file";
    builder
        .append_data(&mut header, long, &[7; 700][..])
        .unwrap();
    let records: [(&str, &[u8]); 2] = [("SCHILY.xattr.user.a", b"b"), ("mtime", b"17.5")];
    builder.append_pax_extensions(records).unwrap();
    header.set_size(3);
    builder
        .append_data(&mut header, "plain", &b"abc"[..])
        .unwrap();
    let sparse: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"holes"),
        ("GNU.sparse.realsize", b"5000"),
    ];
    builder.append_pax_extensions(sparse).unwrap();
    let mut stored = b"2\n100\n10\n4000\n90\n".to_vec();
    stored.resize(512, 0);
    stored.extend([9; 100]);
    header.set_size(stored.len() as u64);
    builder
        .append_data(&mut header, "GNUSparse/holes", &stored[..])
        .unwrap();
    let mut link = Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "link", "plain").unwrap();
    builder.into_inner().unwrap()
}

/// A member's name and content.
type Found = (Vec<u8>, Vec<u8>);

/// Reads everything; gives names and bytes of contents.
fn read_all(bytes: &[u8]) -> Result<Vec<Found>, TarError> {
    let mut reader = TarReader::new(bytes, End::Mark);
    let mut found = Vec::new();
    while let Some(member) = reader.next()? {
        let mut content = Vec::new();
        // A lie about a sparse file's size could ask for gigabytes of zeros.
        reader.content().take(1 << 20).read_to_end(&mut content)?;
        found.push((member.name, content));
    }
    Ok(found)
}

#[test]
fn reads_what_tools_write() {
    let found = read_all(&archive()).unwrap();
    assert_eq!(found.len(), 4);
    assert_eq!(found[0].0.len(), 154);
    assert_eq!(found[0].1, [7; 700]);
    assert_eq!(found[1], (b"plain".to_vec(), b"abc".to_vec()));
    let (name, holes) = &found[2];
    assert_eq!((name.as_slice(), holes.len()), (&b"holes"[..], 5000));
    assert_eq!(holes.iter().filter(|byte| **byte == 9).count(), 100);
    assert_eq!(
        (holes[99], holes[100], holes[110], holes[4000]),
        (0, 9, 0, 9)
    );
    assert_eq!(found[3].0, b"link");
}

#[test]
fn old_sparse_files_have_holes() {
    let mut header = Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(4);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..5].copy_from_slice(b"holes");
    gnu.sparse[0].set_offset(2);
    gnu.sparse[0].set_length(4);
    gnu.set_real_size(10);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(b"abcd");
    bytes.resize(512 * 4, 0);
    let found = read_all(&bytes).unwrap();
    assert_eq!(found[0].1, b"\0\0abcd\0\0\0\0");
}

proptest! {
    #[test]
    fn any_bytes_come_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read_all(&bytes);
    }

    #[test]
    fn any_change_of_an_archive_comes_to_an_end(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        resum in any::<bool>(),
        length in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = archive();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
            if resum {
                // A hostile archive has right checksums.
                let begin = at / 512 * 512;
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bytes[begin..begin + 512]);
                header.set_cksum();
                bytes[begin..begin + 512].copy_from_slice(header.as_bytes());
            }
        }
        let _ = read_all(&bytes);
        let _ = read_all(&bytes[..length.index(bytes.len())]);
    }
}
