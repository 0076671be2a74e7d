//! A QEMU that boots nothing, with a kernel and a program for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Nothing but what the runner looks at.
#[derive(Debug)]
pub(crate) struct FakeQemu {
    folder: TempDir,
}

impl FakeQemu {
    /// One whose guests are the shell command `boots`, which is carried out in
    /// its folder.
    pub(crate) fn new(boots: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let qemu = format!(
            "#!/bin/sh\ncase \"$*\" in\n--version) echo fake;;\n-netdev*) echo user;;\n*) cd {}\n\
             {boots};;\nesac\n",
            folder.path().display()
        );
        fs::write(at("qemu-system-x86_64"), qemu).unwrap();
        fs::set_permissions(at("qemu-system-x86_64"), fs::Permissions::from_mode(0o755)).unwrap();
        // The boot header of a kernel, and the header of a static program.
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x210..0x213].copy_from_slice(b"1.2");
        image[0x20e] = 0x10;
        fs::write(at("vmlinuz"), image).unwrap();
        let mut program = vec![0; 120];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        program[18] = 62;
        fs::write(at("program"), program).unwrap();
        Self { folder }
    }

    /// Where its files are, and the runner's temporary ones.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `kernels run` with it.
    pub(crate) fn kernels_run(&self, accelerator: &str) -> Command {
        let at = |name: &str| self.folder().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
        command.args(["kernels", "run", "--accel", accelerator, "--kernel"]).arg(at("vmlinuz"));
        command.arg("--binary").arg(at("program"));
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.folder().display()));
        command.env("TMPDIR", self.folder());
        command
    }
}
