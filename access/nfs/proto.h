/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers of NFS version 3 and MOUNT version 3 (RFC 1813) and of the portmapper (RFC 1833), under
 * their names there. */
#ifndef ZBS_ACCESS_NFS_PROTO_H
#define ZBS_ACCESS_NFS_PROTO_H

#define NFS_PROGRAM     100003u
#define NFS_V3          3u
#define MOUNT_PROGRAM   100005u
#define MOUNT_V3        3u
#define NLM_PROGRAM     100021u
#define NLM_V4          4u
#define NSM_PROGRAM     100024u
#define NSM_V1          1u
#define PORTMAP_PROGRAM 100000u
#define PORTMAP_V2      2u
#define PORTMAP_PORT    111u

#define NFS3_VERIFIER_BYTES 8u
#define MOUNT_PATH_MAX      1024u

enum nfs_procedure {
    NFS3_NULL,
    NFS3_GETATTR,
    NFS3_SETATTR,
    NFS3_LOOKUP,
    NFS3_ACCESS,
    NFS3_READLINK,
    NFS3_READ,
    NFS3_WRITE,
    NFS3_CREATE,
    NFS3_MKDIR,
    NFS3_SYMLINK,
    NFS3_MKNOD,
    NFS3_REMOVE,
    NFS3_RMDIR,
    NFS3_RENAME,
    NFS3_LINK,
    NFS3_READDIR,
    NFS3_READDIRPLUS,
    NFS3_FSSTAT,
    NFS3_FSINFO,
    NFS3_PATHCONF,
    NFS3_COMMIT,
    NFS3_PROCEDURES
};

enum nfs_status { /* nfsstat3 */
                  NFS3_OK = 0,
                  NFS3ERR_PERM = 1,
                  NFS3ERR_NOENT = 2,
                  NFS3ERR_IO = 5,
                  NFS3ERR_ACCES = 13,
                  NFS3ERR_EXIST = 17,
                  NFS3ERR_XDEV = 18,
                  NFS3ERR_NOTDIR = 20,
                  NFS3ERR_ISDIR = 21,
                  NFS3ERR_INVAL = 22,
                  NFS3ERR_FBIG = 27,
                  NFS3ERR_NOSPC = 28,
                  NFS3ERR_ROFS = 30,
                  NFS3ERR_MLINK = 31,
                  NFS3ERR_NAMETOOLONG = 63,
                  NFS3ERR_NOTEMPTY = 66,
                  NFS3ERR_STALE = 70,
                  NFS3ERR_BADHANDLE = 10001,
                  NFS3ERR_NOT_SYNC = 10002,
                  NFS3ERR_NOTSUPP = 10004,
                  NFS3ERR_TOOSMALL = 10005,
                  NFS3ERR_SERVERFAULT = 10006,
                  NFS3ERR_BADTYPE = 10007,
                  NFS3ERR_JUKEBOX = 10008,
};

enum nfs_access_bits {
    ACCESS3_READ = 0x01,
    ACCESS3_LOOKUP = 0x02,
    ACCESS3_MODIFY = 0x04,
    ACCESS3_EXTEND = 0x08,
    ACCESS3_DELETE = 0x10,
    ACCESS3_EXECUTE = 0x20,
};

enum nfs_stable { UNSTABLE = 0, DATA_SYNC = 1, FILE_SYNC = 2 };
enum nfs_createmode { CREATE_UNCHECKED = 0, CREATE_GUARDED = 1, CREATE_EXCLUSIVE = 2 };

enum nfs_fsinfo_properties {
    FSF3_LINK = 0x01,
    FSF3_SYMLINK = 0x02,
    FSF3_HOMOGENEOUS = 0x08,
    FSF3_CANSETTIME = 0x10,
};

enum mount_procedure {
    MOUNT3_NULL,
    MOUNT3_MNT,
    MOUNT3_DUMP,
    MOUNT3_UMNT,
    MOUNT3_UMNTALL,
    MOUNT3_EXPORT,
    MOUNT3_PROCEDURES
};

enum mount_status { /* mountstat3 */
                    MNT3_OK = 0,
                    MNT3ERR_NOENT = 2,
                    MNT3ERR_IO = 5,
                    MNT3ERR_ACCES = 13,
                    MNT3ERR_NOTDIR = 20,
                    MNT3ERR_NAMETOOLONG = 63,
};

enum portmap_procedure {
    PORTMAP_NULL,
    PORTMAP_SET,
    PORTMAP_UNSET,
    PORTMAP_GETPORT,
    PORTMAP_DUMP,
    PORTMAP_PROCEDURES
};

#define PORTMAP_TCP 6u  /* IPPROTO_TCP */
#define PORTMAP_UDP 17u /* IPPROTO_UDP */

#endif
