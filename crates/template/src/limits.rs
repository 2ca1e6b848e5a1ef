//! What an imported tree may be at most.
//!
//! Everything imported is hostile: an archive of a few kilobytes can ask for terabytes of zeros or
//! millions of names. Each bound below turns such a request into a refusal that names it. They are
//! far above every real distribution (Debian's desktop has 300,000 inodes and 6 GB).

/// Inodes in one tree, counting also those that a later entry replaced. One costs about 200 bytes
/// of memory while the tree is read.
pub const INODES_MAX: u64 = 2_000_000;

/// Headers read from one archive, so that an archive of headers alone comes to an end.
pub const ARCHIVE_HEADERS_MAX: u64 = 3 * INODES_MAX;

/// Bytes of one file.
pub const FILE_BYTES_MAX: u64 = 16 << 30;

/// Bytes of all files of one tree together.
pub const CONTENT_BYTES_MAX: u64 = 64 << 30;

/// Bytes of all names, link targets and attributes of one tree: what stays in memory.
pub const METADATA_BYTES_MAX: u64 = 512 << 20;

/// Bytes of one name (`NAME_MAX` of Linux).
pub const NAME_BYTES_MAX: usize = 255;

/// Bytes of one path (`PATH_MAX` of Linux, without its final zero).
pub const PATH_BYTES_MAX: usize = 4095;

/// Directories below each other. Trees are walked recursively, some with one open directory a
/// level.
pub const DEPTH_MAX: usize = 256;

/// Bytes of a symbolic link's target: the limit of the image format (`composefs::SYMLINK_MAX`).
pub const SYMLINK_BYTES_MAX: usize = composefs::SYMLINK_MAX;

/// Symbolic links followed while one path is resolved (`MAXSYMLINKS` of Linux).
pub const SYMLINK_HOPS_MAX: usize = 40;

/// Extended attributes of one inode, and the bytes of all of them: the image keeps their length
/// in a 16-bit count of words.
pub const ATTRIBUTES_MAX: usize = 64;
/// See [`ATTRIBUTES_MAX`].
pub const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

/// User and group ids begin to be another VE's here: each VE has a range of 65,536.
pub const ID_END: u64 = 65_536;

/// Bytes of one extension record of a tar archive (long names, pax attributes).
pub const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// Pieces of one sparse file in a tar archive.
pub const SPARSE_PIECES_MAX: usize = 65_536;

/// Bytes of one JSON document of an OCI layout.
pub const OCI_DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// Layers of one OCI image. Container engines stop at 127.
pub const OCI_LAYERS_MAX: usize = 512;

/// Bytes of `metadata.yaml` of an LXC image.
pub const LXC_METADATA_BYTES_MAX: u64 = 1 << 20;

/// Bytes read of a file inside the tree to find out what the tree is (package databases).
pub const INSPECTED_BYTES_MAX: u64 = 64 << 20;

/// Files up to this size are kept in the image itself (`composefs::INLINE_CONTENT_MAX_V0`).
pub const INLINE_BYTES_MAX: usize = composefs::INLINE_CONTENT_MAX_V0;

/// Largest image that is read into memory: 2,000,000 inodes take well below this.
pub const IMAGE_BYTES_MAX: u64 = 2 << 30;
