//! A module in a context: its code, its variables in device memory, and its kernels' launches.

use std::collections::HashMap;
use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::types::CUresult;

use crate::device::Device;
use crate::kernel::Kernel;
use crate::limits;
use crate::memory::{Accessor, Purpose, Viewer};
use crate::transfer::{self, Fill, Pattern};

/// A variable of a module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variable {
    pub(crate) address: u64,
    pub(crate) len: u64,
    /// One for all contexts, and the host's as well.
    pub(crate) managed: bool,
}

/// The variables of a module, by name.
pub(crate) type Variables = HashMap<String, Variable>;

/// A module, loaded in one context.
pub(crate) struct Program {
    linked: ptx::LinkedModule,
    variables: Variables,
}

/// Why an image was not loaded, with a text for the error log.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) result: CUresult,
    pub(crate) log: String,
}

impl From<CUresult> for Refusal {
    fn from(result: CUresult) -> Self {
        Refusal { result, log: result.to_string() }
    }
}

/// Reads PTX.
pub(crate) fn parse(text: &str) -> Result<ptx::Module, Refusal> {
    ptx::Module::parse(text).map_err(|error| {
        let result = match &error {
            ptx::LoadError::TooNew { .. } => CUresult::UNSUPPORTED_PTX_VERSION,
            ptx::LoadError::Target { .. } => CUresult::NO_BINARY_FOR_GPU,
            _ => CUresult::INVALID_PTX,
        };
        Refusal { result, log: format!("ptx: {error}") }
    })
}

impl Program {
    /// Gives a module's variables memory and their first values. `managed` has the managed ones, if another context has come first:
    /// they belong to the library.
    pub(crate) fn load(
        device: &Device,
        context: u32,
        module: ptx::Module,
        managed: &mut Variables,
    ) -> Result<Arc<Self>, Refusal> {
        let constant: u64 = module
            .globals()
            .filter(|g| g.space == ptx::Space::Const)
            .fold(0, |sum: u64, g| sum.saturating_add(g.size));
        if constant > limits::CONSTANT_BYTES {
            let log =
                format!("{constant} bytes of constant memory, the device has {}", limits::CONSTANT_BYTES);
            return Err(Refusal { result: CUresult::INVALID_PTX, log });
        }
        let mut variables = managed.clone();
        // What is placed here, and given back where the load fails.
        let mut fresh = HashMap::new();
        let placed = module.globals().try_for_each(|g| {
            if g.managed && managed.contains_key(&g.name) {
                return Ok(());
            }
            let (purpose, context) = match g.space {
                ptx::Space::Global if g.managed => (Purpose::Managed, 0),
                ptx::Space::Global => (Purpose::Variable, context),
                ptx::Space::Const => (Purpose::Constant, context),
            };
            if u64::from(g.align) > crate::space::ALIGN_BYTES {
                let log = format!("variable {} wants an alignment of {}", g.name, g.align);
                return Err(Refusal { result: CUresult::INVALID_PTX, log });
            }
            let address = device.memory.allocate(g.size.max(1), Vec::new(), context, purpose)?;
            fresh.insert(g.name.clone(), Variable { address, len: g.size, managed: g.managed });
            Ok(())
        });
        let outcome = placed.and_then(|()| {
            variables.extend(fresh.clone());
            let addresses = variables.iter().map(|(name, v)| (name.clone(), v.address)).collect();
            let linked = module
                .link(&addresses)
                .map_err(|error| Refusal { result: CUresult::INVALID_PTX, log: format!("ptx: {error}") })?;
            initialise(device, &linked, &fresh)?;
            Ok(linked)
        });
        match outcome {
            Ok(linked) => {
                managed.extend(fresh.into_iter().filter(|(_, variable)| variable.managed));
                Ok(Arc::new(Program { linked, variables }))
            }
            Err(refusal) => {
                give_back(device, fresh.values());
                Err(refusal)
            }
        }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<Variable> {
        self.variables.get(name).copied()
    }

    pub(crate) fn module(&self) -> &ptx::Module {
        self.linked.module()
    }

    /// Frees its variables. Its work is done (the caller has waited).
    pub(crate) fn unload(&self, device: &Device) {
        give_back(device, self.variables.values().filter(|variable| !variable.managed));
    }
}

/// Frees variables. Their work is done (the caller has waited).
pub(crate) fn give_back<'a>(device: &Device, variables: impl Iterator<Item = &'a Variable>) {
    let starts: Vec<u64> = variables.map(|v| v.address).collect();
    // The guest's copy is no longer brought into line.
    for start in &starts {
        device.managed.remove(*start);
    }
    if device.memory.free(&starts, &[Purpose::Variable, Purpose::Constant, Purpose::Managed]).is_err() {
        log::error!("a variable was gone before its module");
    }
}

fn initialise(device: &Device, linked: &ptx::LinkedModule, variables: &Variables) -> CuResult<()> {
    for global in linked.module().globals() {
        let Some(variable) = variables.get(&global.name) else { continue };
        if global.init.is_empty() && global.relocations.is_empty() {
            let zeros = Fill {
                start: variable.address,
                pitch: 0,
                pattern: Pattern::Bytes(0),
                width: variable.len,
                height: 1,
            };
            transfer::fill(&device.memory, &zeros)?;
            continue;
        }
        let bytes = linked.initial_bytes(&global.name).ok_or(CUresult::INVALID_IMAGE)?;
        let len = (bytes.len() as u64).min(variable.len);
        // SAFETY: the vector holds at least `len` bytes.
        unsafe { transfer::copy_in(&device.memory, variable.address, bytes.as_ptr(), len) }?;
    }
    Ok(())
}

/// A launch in a stream.
pub(crate) struct Launch {
    pub(crate) program: Arc<Program>,
    /// In whose name it follows addresses.
    pub(crate) viewer: Viewer,
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) dynamic_shared_bytes: u32,
    pub(crate) params: Box<[u8]>,
}

struct Global<'a>(Accessor<'a>, Viewer);

// SAFETY: `Accessor::find` answers allocations and registered regions, whose device and host addresses are the same;
// they stay memory while the accessor lasts (`Memory` waits for it before it takes any away), which is until after the
// launch has returned (`Launch::run`).
unsafe impl ptx::GlobalMemory for Global<'_> {
    fn resolve(&self, addr: u64) -> Option<ptx::Range> {
        let found = self.0.find(addr, self.1)?;
        Some(ptx::Range {
            base: found.start,
            len: found.len,
            host: std::ptr::with_exposed_provenance_mut(usize::try_from(found.start).ok()?),
            writable: found.writable,
        })
    }
}

impl Launch {
    /// Runs the kernel to its end.
    pub(crate) fn run(&self, device: &Device) -> CuResult<()> {
        let kernel = self.program.module().kernels().nth(self.kernel.index).ok_or(CUresult::LAUNCH_FAILED)?;
        let memory = Global(device.memory.access(), self.viewer);
        let config = ptx::LaunchConfig {
            kernel,
            grid: self.grid,
            block: self.block,
            dynamic_shared_bytes: self.dynamic_shared_bytes,
            params: &self.params,
            memory: &memory,
            workers: device.cores,
            cancel: &device.cancel,
            print: &|text| device.print(text),
        };
        let _running = device.running.begin();
        self.program.linked.launch(&config).map(|_| ()).map_err(|fault| {
            let result = result_of(&fault);
            if fault != ptx::Fault::Cancelled {
                log::warn!("a kernel faults: {fault}");
            }
            result
        })
    }
}

fn result_of(fault: &ptx::Fault) -> CUresult {
    match fault {
        ptx::Fault::IllegalAddress { .. } => CUresult::ILLEGAL_ADDRESS,
        ptx::Fault::MisalignedAddress { .. } => CUresult::MISALIGNED_ADDRESS,
        ptx::Fault::IllegalInstruction { .. } => CUresult::ILLEGAL_INSTRUCTION,
        ptx::Fault::InvalidAddressSpace { .. } => CUresult::INVALID_ADDRESS_SPACE,
        ptx::Fault::StackOverflow { .. } => CUresult::HARDWARE_STACK_ERROR,
        // A GPU would hang there until its watchdog ends it.
        ptx::Fault::Deadlock { .. } => CUresult::LAUNCH_TIMEOUT,
        ptx::Fault::Trap { .. } | ptx::Fault::InvalidLaunch { .. } | ptx::Fault::Cancelled => {
            CUresult::LAUNCH_FAILED
        }
    }
}
