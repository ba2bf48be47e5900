//! The kinds of request that a kernel sends, by the names that the FUSE protocol gives them.

macro_rules! operations {
    ($($operation:ident $name:literal)+) => {
        /// A kind of request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Operation {
            $(#[doc = concat!("`", $name, "`")] $operation,)+
        }

        impl Operation {
            /// All of them, each at the place that it has as a number.
            pub const ALL: &[Self] = &[$(Self::$operation),+];

            /// Its name in the protocol, in lower case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$operation => $name,)+
                }
            }
        }
    };
}

operations! {
    Lookup "lookup"
    Forget "forget"
    Getattr "getattr"
    Setattr "setattr"
    Readlink "readlink"
    Mknod "mknod"
    Mkdir "mkdir"
    Unlink "unlink"
    Rmdir "rmdir"
    Symlink "symlink"
    Rename "rename"
    Link "link"
    Open "open"
    Create "create"
    Tmpfile "tmpfile"
    Read "read"
    Write "write"
    Flush "flush"
    Release "release"
    Fsync "fsync"
    Fallocate "fallocate"
    Lseek "lseek"
    CopyFileRange "copy_file_range"
    Opendir "opendir"
    Readdir "readdir"
    Readdirplus "readdirplus"
    Releasedir "releasedir"
    Fsyncdir "fsyncdir"
    Statfs "statfs"
    Setxattr "setxattr"
    Getxattr "getxattr"
    Listxattr "listxattr"
    Removexattr "removexattr"
    Ioctl "ioctl"
    Poll "poll"
}
