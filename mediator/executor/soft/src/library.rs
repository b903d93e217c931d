//! Modules, libraries and what they hold.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cuda_api::CuResult;
use cuda_api::types::CUresult;
use cuda_api::wire::INLINE_BYTES_MAX;

use crate::budget::Hold;
use crate::device::Device;
use crate::kernel::Kernel;
use crate::lock::lock;
use crate::program::{Program, Refusal, Variables, give_back, parse};

/// A loaded text: its kernels, and one program per context that uses it.
pub(crate) struct Library {
    text: String,
    /// Returns the text's bytes to the budget.
    _hold: Hold,
    kernels: HashMap<String, Arc<Kernel>>,
    /// The text as first read, for the first context that asks.
    first: Mutex<Option<ptx::Module>>,
    programs: Mutex<HashMap<u32, Arc<Program>>>,
    /// Its managed variables, once a context has loaded it. Taken after `programs`.
    managed: Mutex<Variables>,
}

/// A module: a library in one context, or a handle to it that cuLibraryGetModule gave.
pub(crate) struct Module {
    pub(crate) library: Arc<Library>,
    pub(crate) context: u32,
    /// It goes with its library only.
    pub(crate) borrowed: bool,
}

/// A function of a module, or a kernel of a library: which context's is known at the launch.
pub(crate) struct Function {
    pub(crate) library: Arc<Library>,
    pub(crate) kernel: Arc<Kernel>,
    /// The context that it belongs to; none for a kernel.
    pub(crate) context: Option<u32>,
}

impl Library {
    pub(crate) fn read(device: &Device, text: String) -> Result<Arc<Self>, Refusal> {
        let hold = device.texts.take(text.len() as u64, || true).ok_or(CUresult::OUT_OF_MEMORY)?;
        let module = parse(&text)?;
        let kernels = Kernel::all(&module).into_iter().map(|k| (k.name.clone(), k)).collect();
        Ok(Arc::new(Library {
            text,
            _hold: hold,
            kernels,
            first: Mutex::new(Some(module)),
            programs: Mutex::default(),
            managed: Mutex::default(),
        }))
    }

    pub(crate) fn kernel(&self, name: &str) -> CuResult<Arc<Kernel>> {
        self.kernels.get(name).cloned().ok_or(CUresult::NOT_FOUND)
    }

    /// The kernels' names in the text's order from one on, each with a NUL, as many as a reply carries.
    pub(crate) fn names(&self, first: u32) -> Vec<u8> {
        let mut kernels: Vec<&Kernel> = self.kernels.values().map(|k| &**k).collect();
        kernels.sort_by_key(|kernel| kernel.index);
        let mut names = Vec::new();
        for kernel in kernels.into_iter().skip(usize::try_from(first).unwrap_or(usize::MAX)) {
            let used = names.len().saturating_add(kernel.name.len());
            if used >= INLINE_BYTES_MAX {
                break;
            }
            names.extend_from_slice(kernel.name.as_bytes());
            names.push(0);
        }
        names
    }

    pub(crate) fn kernel_count(&self) -> u32 {
        u32::try_from(self.kernels.len()).unwrap_or(u32::MAX)
    }

    /// The program in a context, loaded there where it is not yet.
    pub(crate) fn program(&self, device: &Device, context: u32) -> Result<Arc<Program>, Refusal> {
        let mut programs = lock(&self.programs);
        if let Some(program) = programs.get(&context) {
            return Ok(program.clone());
        }
        let module = match lock(&self.first).take() {
            Some(module) => module,
            None => parse(&self.text)?,
        };
        let program = Program::load(device, context, module, &mut lock(&self.managed))?;
        programs.insert(context, program.clone());
        Ok(program)
    }

    /// The context is gone, its variables with it.
    pub(crate) fn forget(&self, context: u32) {
        lock(&self.programs).remove(&context);
    }

    /// Frees the variables in every context. Their work is done (the caller has waited).
    pub(crate) fn unload(&self, device: &Device) {
        for (_, program) in std::mem::take(&mut *lock(&self.programs)) {
            program.unload(device);
        }
        self.end_managed(device);
    }

    /// Frees the managed variables. Their work is done (the caller has waited).
    pub(crate) fn end_managed(&self, device: &Device) {
        give_back(device, std::mem::take(&mut *lock(&self.managed)).values());
    }
}
