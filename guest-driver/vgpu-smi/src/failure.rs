//! Why the program ends with another status than 0.

use crate::nvml::Code;
use crate::nvml::library::LoadError;

/// Wrong arguments.
pub const STATUS_USAGE: u8 = 2;
/// There is no such thing here.
pub const STATUS_NOT_AVAILABLE: u8 = 3;
/// The VM may not do it.
pub const STATUS_NO_PERMISSION: u8 = 4;
/// The doctor has found something.
pub const STATUS_UNWELL: u8 = 1;

/// Words for a person, and the exit status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct Failure {
    /// One of NVML's codes, 2 for wrong arguments.
    pub status: u8,
    /// What to say.
    pub words: String,
    /// This program itself declines: said on stderr. What NVML fails with is said where nvidia-smi says it, on stdout.
    pub declined: bool,
}

impl Failure {
    /// Wrong arguments.
    pub fn usage(words: impl Into<String>) -> Self {
        Self { status: STATUS_USAGE, words: words.into(), declined: false }
    }

    /// A field that is none.
    pub fn invalid_field(name: &str) -> Self {
        // The words that scripts look for.
        Self::usage(format!("Field \"{name}\" is not a valid field to query."))
    }

    /// What changes the GPU.
    pub fn refused(option: &str) -> Self {
        let words = format!("{option}: the VM may not change the host's GPU");
        Self { status: STATUS_NO_PERMISSION, words, declined: true }
    }

    /// What this program does not have.
    pub fn not_available(what: &str, instead: &str) -> Self {
        let words = format!("{what} is not available in a VM: {instead}");
        Self { status: STATUS_NOT_AVAILABLE, words, declined: true }
    }

    /// A device that is asked for and not there.
    pub fn no_such_device(id: &str) -> Self {
        let words = format!("No devices were found: there is no GPU {id:?} (-L lists them)");
        Self { status: Code::NOT_FOUND.status(), words, declined: false }
    }

    /// A VM without devices.
    pub fn no_devices() -> Self {
        let words = "No devices were found".to_owned();
        Self { status: Code::NOT_FOUND.status(), words, declined: false }
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        let words = match code {
            Code::DRIVER_NOT_LOADED => {
                "no GPU: the vGPU device is missing, or its daemon on the host does not answer (`vgpu-smi doctor` says which)".to_owned()
            }
            Code::GPU_IS_LOST => {
                "GPU is lost: the daemon on the host has ended (`vgpu-smi doctor` says more)".to_owned()
            }
            Code::NO_PERMISSION => {
                "Insufficient Permissions: this user may not open the vGPU device (`vgpu-smi doctor` says why)"
                    .to_owned()
            }
            Code::VERSION_MISMATCH => {
                "Driver/library version mismatch: guest and host have different releases (`vgpu-smi doctor` says more)".to_owned()
            }
            other => other.words().to_owned(),
        };
        Self { status: code.status(), words: format!("NVML: {words}"), declined: false }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Init(code) => code.into(),
            LoadError::NotFound(why) => Self {
                status: Code::LIBRARY_NOT_FOUND.status(),
                words: format!(
                    "the library libnvidia-ml.so.1 cannot be loaded ({why}): install it where the dynamic loader looks, and run ldconfig"
                ),
                declined: false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_that_nvml_lacks_is_no_refusal_of_this_program() {
        let nvml = Failure::from(Code::NO_PERMISSION);
        let ours = Failure::refused("-pm");
        assert_eq!((nvml.status, ours.status), (STATUS_NO_PERMISSION, STATUS_NO_PERMISSION));
        assert_eq!((nvml.declined, ours.declined), (false, true));
        let nvml = Failure::from(Code::NOT_SUPPORTED);
        assert_eq!((nvml.status, nvml.declined), (STATUS_NOT_AVAILABLE, false));
    }
}
