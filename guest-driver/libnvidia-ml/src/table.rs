//! Every symbol that driver 580's libnvidia-ml exports, by chapter.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::atomic::AtomicBool;

use crate::answer::Return;
use crate::exports::{chapter, guarded, refused};
use crate::fields::FieldValue;
use crate::find::Uuid;
use crate::identity::{PciInfo, PciInfoV1, PciInfoV2};
use crate::load::{Temperature, Utilization};
use crate::machine::Handle;
use crate::memory::{Memory, MemoryV2};
use crate::processes::{ProcessV1, ProcessV2};
use crate::{clocks, fields, find, identity, links, load, memory, modes, nvlink, processes, state, system};

/// A symbol.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// The code that it is refused with; None where it is answered.
    pub refusal: Option<Return>,
    /// What it answers, or why it is refused.
    pub words: &'static str,
}

/// nvmlInit and nvmlInit_v2.
unsafe fn start() -> crate::answer::Answer {
    state::start(0)
}

/// nvmlInitWithFlags.
unsafe fn start_with(flags: c_uint) -> crate::answer::Answer {
    state::start(flags)
}

/// nvmlShutdown.
unsafe fn end() -> crate::answer::Answer {
    state::end()
}

chapter! { system_wide
    answered {
        /// Reads what the daemon tells of the VM. Counted: each start wants an end.
        free nvmlInit_v2() = start;
        /// As nvmlInit_v2.
        free nvmlInit() = start;
        /// As nvmlInit_v2; the flags of driver 580 change nothing here.
        free nvmlInitWithFlags(flags: c_uint) = start_with;
        /// Ends what nvmlInit began.
        free nvmlShutdown() = end;
        /// Words for every code. Works before nvmlInit.
        by_hand nvmlErrorString() = crate::exports::nvmlErrorString;
        /// The host's driver's release, or 580.00.
        system nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) = system::driver_version;
        /// CUDA's major number and the driver's release. Works before nvmlInit.
        free nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) = system::nvml_version;
        /// What cuDriverGetVersion answers.
        system nvmlSystemGetCudaDriverVersion(version: *mut c_int) = system::cuda_version;
        /// What cuDriverGetVersion answers.
        system nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) = system::cuda_version;
        /// The program of a process of this VM.
        system nvmlSystemGetProcessName(pid: c_uint, name: *mut c_char, length: c_uint) = system::process_name;
        /// None.
        system nvmlSystemGetHicVersion(count: *mut c_uint, boards: *mut c_void) = system::no_boards;
        /// None.
        system nvmlUnitGetCount(count: *mut c_uint) = system::none;
        /// There is none: INVALID_ARGUMENT.
        system nvmlUnitGetHandleByIndex(index: c_uint, unit: *mut c_void) = system::no_such_index;
        /// None.
        system nvmlGetExcludedDeviceCount(count: *mut c_uint) = system::none;
        /// There is none: INVALID_ARGUMENT.
        system nvmlGetExcludedDeviceInfoByIndex(index: c_uint, info: *mut c_void) = system::no_such_index;
        /// None.
        system nvmlGetBlacklistDeviceCount(count: *mut c_uint) = system::none;
        /// There is none: INVALID_ARGUMENT.
        system nvmlGetBlacklistDeviceInfoByIndex(index: c_uint, info: *mut c_void) = system::no_such_index;
    }
    refused {
        NOT_SUPPORTED system "the branch that the host's driver was built from is not known":
            nvmlSystemGetDriverBranch;
        NOT_SUPPORTED system "how the VM's processors lie to the host's devices is not known":
            nvmlSystemGetTopologyGpuSet;
        NOT_SUPPORTED system "there are no units":
            nvmlUnitGetDevices nvmlUnitGetFanSpeedInfo nvmlUnitGetLedState nvmlUnitGetPsuInfo nvmlUnitGetTemperature
            nvmlUnitGetUnitInfo nvmlUnitSetLedState;
        NOT_SUPPORTED system "tables of undocumented functions, for NVIDIA's own programs":
            nvmlInternalGetExportTable;
        NOT_SUPPORTED system "the host tells of no events":
            nvmlEventSetCreate nvmlEventSetFree nvmlEventSetWait nvmlEventSetWait_v2 nvmlSystemEventSetCreate
            nvmlSystemEventSetFree nvmlSystemEventSetWait nvmlSystemRegisterEvents;
        NOT_SUPPORTED system "confidential computing does not reach through a worker":
            nvmlSystemGetConfComputeCapabilities nvmlSystemGetConfComputeGpusReadyState
            nvmlSystemGetConfComputeKeyRotationThresholdInfo nvmlSystemGetConfComputeSettings nvmlSystemGetConfComputeState;
        NO_PERMISSION system "the devices are the host's":
            nvmlSystemSetConfComputeGpusReadyState nvmlSystemSetConfComputeKeyRotationThresholdInfo nvmlSystemSetNvlinkBwMode
            nvmlDeviceDiscoverGpus nvmlDeviceModifyDrainState nvmlDeviceRemoveGpu nvmlDeviceRemoveGpu_v2;
        NOT_SUPPORTED system "the host's devices are not drained from a VM":
            nvmlDeviceQueryDrainState;
    }
}

chapter! { devices
    answered {
        /// The VM's devices, whatever CUDA_VISIBLE_DEVICES says.
        system nvmlDeviceGetCount_v2(count: *mut c_uint) = find::count;
        /// As nvmlDeviceGetCount_v2.
        system nvmlDeviceGetCount(count: *mut c_uint) = find::count;
        /// By index, in the order of PCI addresses.
        system nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut Handle) = find::by_index;
        /// As nvmlDeviceGetHandleByIndex_v2.
        system nvmlDeviceGetHandleByIndex(index: c_uint, device: *mut Handle) = find::by_index;
        /// By PCI address, with a domain of any length.
        system nvmlDeviceGetHandleByPciBusId_v2(address: *const c_char, device: *mut Handle) = find::by_pci;
        /// As nvmlDeviceGetHandleByPciBusId_v2.
        system nvmlDeviceGetHandleByPciBusId(address: *const c_char, device: *mut Handle) = find::by_pci;
        /// By UUID, `GPU-…`.
        system nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut Handle) = find::by_uuid;
        /// By UUID, as text or as bytes.
        system nvmlDeviceGetHandleByUUIDV(uuid: *const Uuid, device: *mut Handle) = find::by_uuid_of_kind;
        /// What cuDeviceGetName answers.
        device nvmlDeviceGetName(name: *mut c_char, length: c_uint) = identity::name;
        /// What cuDeviceGetUuid answers, as text.
        device nvmlDeviceGetUUID(uuid: *mut c_char, length: c_uint) = identity::uuid;
        /// The number that nvmlDeviceGetHandleByIndex finds it by.
        device nvmlDeviceGetIndex(index: *mut c_uint) = identity::index;
        /// The index: a VM has no device files of NVIDIA's with numbers of their own.
        device nvmlDeviceGetMinorNumber(minor: *mut c_uint) = identity::index;
        /// The PCI address that cuDeviceGetPCIBusId answers: the host's, or that of the plain PCI function in the VM; the card's own ids from the host, or 0.
        device nvmlDeviceGetPciInfo_v3(pci: *mut PciInfo) = identity::pci_info;
        /// As nvmlDeviceGetPciInfo_v3, in the structure of NVML 2.
        device nvmlDeviceGetPciInfo_v2(pci: *mut PciInfoV2) = identity::pci_info_v2;
        /// As nvmlDeviceGetPciInfo_v3, in the structure of NVML 1.
        device nvmlDeviceGetPciInfo(pci: *mut PciInfoV1) = identity::pci_info_v1;
        /// PCI Express.
        device nvmlDeviceGetBusType(kind: *mut c_uint) = identity::bus_type;
        /// What cuDeviceGetAttribute says.
        device nvmlDeviceGetCudaComputeCapability(major: *mut c_int, minor: *mut c_int) = identity::capability;
        /// From the compute capability.
        device nvmlDeviceGetArchitecture(architecture: *mut c_uint) = identity::architecture;
        /// From the host, or NVML's unknown brand.
        device nvmlDeviceGetBrand(brand: *mut c_uint) = identity::brand;
        /// Multiprocessors times what each has, by the compute capability.
        device nvmlDeviceGetNumGpuCores(cores: *mut c_uint) = identity::cores;
        /// What cuDeviceGetAttribute says.
        device nvmlDeviceGetMemoryBusWidth(width: *mut c_uint) = identity::memory_bus_width;
        /// What cuDeviceGetAttribute says.
        device nvmlDeviceGetMultiGpuBoard(is: *mut c_uint) = identity::multi_gpu_board;
        /// What cuDeviceGetAttribute says of their boards.
        device nvmlDeviceOnSameBoard(other: Handle, same: *mut c_int) = identity::on_same_board;
    }
    refused {
        NOT_SUPPORTED system "serial numbers stay with the host":
            nvmlDeviceGetHandleBySerial;
        NOT_SUPPORTED device "what the host's card and its firmware are called stays with the host":
            nvmlDeviceGetSerial nvmlDeviceGetBoardId nvmlDeviceGetBoardPartNumber nvmlDeviceGetVbiosVersion
            nvmlDeviceGetBridgeChipInfo nvmlDeviceGetInforomConfigurationChecksum nvmlDeviceGetInforomImageVersion
            nvmlDeviceGetInforomVersion nvmlDeviceGetGspFirmwareMode nvmlDeviceGetGspFirmwareVersion nvmlDeviceGetHostname_v1
            nvmlDeviceGetModuleId nvmlDeviceGetPdi nvmlDeviceGetPgpuMetadataString nvmlDeviceGetPlatformInfo
            nvmlDeviceGetLastBBXFlushTime nvmlDeviceValidateInforom;
        NOT_SUPPORTED device "the class of the host's PCI device is not known":
            nvmlDeviceGetPciInfoExt;
        NOT_SUPPORTED device "how the VM's processors lie to the host's devices is not known":
            nvmlDeviceGetCpuAffinity nvmlDeviceGetCpuAffinityWithinScope nvmlDeviceGetMemoryAffinity nvmlDeviceGetNumaNodeId
            nvmlDeviceSetCpuAffinity nvmlDeviceClearCpuAffinity;
        NOT_SUPPORTED device "only parts of a divided device have them":
            nvmlDeviceGetAttributes nvmlDeviceGetAttributes_v2;
        NOT_SUPPORTED device "there is no interrupt line and no driver model of Windows":
            nvmlDeviceGetIrqNum nvmlDeviceGetDriverModel nvmlDeviceGetDriverModel_v2;
        NOT_SUPPORTED device "not known":
            nvmlDeviceGetAddressingMode nvmlDeviceGetCapabilities nvmlDeviceGetC2cModeInfoV;
    }
}

chapter! { device_memory
    answered {
        /// All that CUDA says there is; free is what the host says, and no more than the VM's processes have left.
        device nvmlDeviceGetMemoryInfo(memory: *mut Memory) = memory::info;
        /// As nvmlDeviceGetMemoryInfo; nothing is told of what is reserved.
        device nvmlDeviceGetMemoryInfo_v2(memory: *mut MemoryV2) = memory::info_v2;
    }
    refused {
        NOT_SUPPORTED device "the window of the host's PCI device is not the VM's":
            nvmlDeviceGetBAR1MemoryInfo;
        NOT_SUPPORTED device "errors of the host's memory are the host's business":
            nvmlDeviceGetDetailedEccErrors nvmlDeviceGetTotalEccErrors nvmlDeviceGetMemoryErrorCounter
            nvmlDeviceGetRemappedRows nvmlDeviceGetRemappedRows_v2 nvmlDeviceGetRepairStatus nvmlDeviceGetRetiredPages
            nvmlDeviceGetRetiredPages_v2 nvmlDeviceGetRetiredPagesPendingStatus nvmlDeviceGetRowRemapperHistogram
            nvmlDeviceGetSramEccErrorStatus nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts
            nvmlDeviceGetUnrepairableMemoryFlag_v1 nvmlDeviceGetDramEncryptionMode;
        NO_PERMISSION device "the devices are the host's":
            nvmlDeviceClearEccErrorCounts nvmlDeviceSetDramEncryptionMode;
        NOT_SUPPORTED device "confidential computing does not reach through a worker":
            nvmlDeviceGetConfComputeGpuAttestationReport nvmlDeviceGetConfComputeGpuCertificate
            nvmlDeviceGetConfComputeMemSizeInfo nvmlDeviceGetConfComputeProtectedMemoryUsage
            nvmlDeviceSetConfComputeUnprotectedMemSize;
    }
}

chapter! { links_between_devices
    answered {
        /// What cuDeviceCanAccessPeer and cuDeviceGetP2PAttribute say; by NVLink or PCI: from the host, or unknown.
        device nvmlDeviceGetP2PStatus(other: Handle, caps: c_uint, status: *mut c_uint) = links::peer_status;
        /// Of a device and itself; of others from the host.
        device nvmlDeviceGetTopologyCommonAncestor(other: Handle, level: *mut c_uint) = links::common_ancestor;
        /// From the host, of links to switches and to the VM's own devices.
        device nvmlDeviceGetNvLinkState(link: c_uint, up: *mut c_uint) = nvlink::state;
        /// As nvmlDeviceGetNvLinkState.
        device nvmlDeviceGetNvLinkVersion(link: c_uint, version: *mut c_uint) = nvlink::version;
        /// As nvmlDeviceGetNvLinkState.
        device nvmlDeviceGetNvLinkCapability(link: c_uint, capability: c_uint, has: *mut c_uint) = nvlink::capability;
        /// As nvmlDeviceGetNvLinkState.
        device nvmlDeviceGetNvLinkRemoteDeviceType(link: c_uint, kind: *mut c_uint) = nvlink::remote_kind;
        /// As nvmlDeviceGetNvLinkState.
        device nvmlDeviceGetNvLinkRemotePciInfo_v2(link: c_uint, pci: *mut PciInfo) = nvlink::remote_pci;
        /// As nvmlDeviceGetNvLinkState, in the structure of its time.
        device nvmlDeviceGetNvLinkRemotePciInfo(link: c_uint, pci: *mut PciInfoV2) = nvlink::remote_pci_v1;
        /// From the host: of its own link.
        device nvmlDeviceGetCurrPcieLinkGeneration(generation: *mut c_uint) = load::pcie_generation;
        /// From the host: of its own link.
        device nvmlDeviceGetCurrPcieLinkWidth(width: *mut c_uint) = load::pcie_width;
        /// From the host: of its own link.
        device nvmlDeviceGetMaxPcieLinkGeneration(generation: *mut c_uint) = load::pcie_generation_max;
        /// From the host: of its own link.
        device nvmlDeviceGetMaxPcieLinkWidth(width: *mut c_uint) = load::pcie_width_max;
    }
    refused {
        NOT_SUPPORTED device "the way through the host is not known":
            nvmlDeviceGetTopologyNearestGpus;
        NOT_SUPPORTED device "the daemon does not tell how NVLink is set and counted":
            nvmlDeviceGetNvLinkErrorCounter nvmlDeviceGetNvLinkInfo nvmlDeviceGetNvLinkUtilizationControl
            nvmlDeviceGetNvLinkUtilizationCounter nvmlDeviceGetNvlinkBwMode nvmlDeviceGetNvlinkSupportedBwModes;
        NOT_SUPPORTED system "the daemon does not tell how NVLink is set and counted":
            nvmlSystemGetNvlinkBwMode;
        NOT_SUPPORTED device "a VM is no member of a fabric":
            nvmlDeviceGetGpuFabricInfo nvmlDeviceGetGpuFabricInfoV;
        NOT_SUPPORTED device "the daemon tells no more of the host's PCI links than generation and width":
            nvmlDeviceGetGpuMaxPcieLinkGeneration nvmlDeviceGetPcieLinkMaxSpeed nvmlDeviceGetPcieReplayCounter
            nvmlDeviceGetPcieSpeed nvmlDeviceGetPcieThroughput;
        NO_PERMISSION device "the devices are the host's":
            nvmlDeviceFreezeNvLinkUtilizationCounter nvmlDeviceResetNvLinkErrorCounters
            nvmlDeviceResetNvLinkUtilizationCounter nvmlDeviceSetNvlinkBwMode nvmlDeviceSetNvLinkDeviceLowPowerThreshold
            nvmlDeviceSetNvLinkUtilizationControl nvmlDeviceReadPRMCounters_v1 nvmlDeviceReadWritePRM_v1;
    }
}

chapter! { load_of_a_device
    answered {
        /// From the host: percent of the time.
        device nvmlDeviceGetUtilizationRates(to: *mut Utilization) = load::utilization;
        /// From the host.
        device nvmlDeviceGetEncoderUtilization(percent: *mut c_uint, us: *mut c_uint) = load::encoder;
        /// From the host.
        device nvmlDeviceGetDecoderUtilization(percent: *mut c_uint, us: *mut c_uint) = load::decoder;
        /// From the host.
        device nvmlDeviceGetTemperature(sensor: c_uint, degrees: *mut c_uint) = load::temperature;
        /// From the host.
        device nvmlDeviceGetTemperatureV(to: *mut Temperature) = load::temperature_of;
        /// From the host.
        device nvmlDeviceGetFanSpeed(percent: *mut c_uint) = load::fan;
        /// From the host.
        device nvmlDeviceGetPowerUsage(mw: *mut c_uint) = load::power;
        /// From the host.
        device nvmlDeviceGetEnforcedPowerLimit(mw: *mut c_uint) = load::power_enforced;
        /// From the host.
        device nvmlDeviceGetPowerManagementLimit(mw: *mut c_uint) = load::power_limit;
        /// From the host.
        device nvmlDeviceGetTotalEnergyConsumption(mj: *mut u64) = load::energy;
        /// From the host.
        device nvmlDeviceGetPerformanceState(state: *mut c_uint) = load::performance_state;
        /// From the host.
        device nvmlDeviceGetPowerState(state: *mut c_uint) = load::performance_state;
        /// From the host.
        device nvmlDeviceGetClockInfo(kind: c_uint, mhz: *mut c_uint) = clocks::current;
        /// The highest clocks that CUDA knows of; of video engines from the host.
        device nvmlDeviceGetMaxClockInfo(kind: c_uint, mhz: *mut c_uint) = clocks::highest;
        /// Each field with a result of its own: ECC; from the host energy, and NVLink's count and state. Of others NOT_SUPPORTED.
        device nvmlDeviceGetFieldValues(count: c_int, values: *mut FieldValue) = fields::values;
    }
    refused {
        NOT_SUPPORTED device "what keeps the host's card cool and fed is the host's business":
            nvmlDeviceGetCoolerInfo nvmlDeviceGetFanControlPolicy_v2 nvmlDeviceGetFanSpeed_v2 nvmlDeviceGetFanSpeedRPM
            nvmlDeviceGetMinMaxFanSpeed nvmlDeviceGetNumFans nvmlDeviceGetTargetFanSpeed nvmlDeviceGetThermalSettings
            nvmlDeviceGetMarginTemperature nvmlDeviceGetTemperatureThreshold nvmlDeviceGetPowerManagementDefaultLimit
            nvmlDeviceGetPowerManagementLimitConstraints nvmlDeviceGetPowerManagementMode nvmlDeviceGetPowerMizerMode_v1
            nvmlDeviceGetPowerSource;
        NOT_SUPPORTED device "clocks that the host may set, or may have set, are not told":
            nvmlDeviceGetAdaptiveClockInfoStatus nvmlDeviceGetApplicationsClock nvmlDeviceGetAutoBoostedClocksEnabled
            nvmlDeviceGetClkMonStatus nvmlDeviceGetClock nvmlDeviceGetClockOffsets nvmlDeviceGetCurrentClockFreqs
            nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetCurrentClocksThrottleReasons
            nvmlDeviceGetDefaultApplicationsClock nvmlDeviceGetDynamicPstatesInfo nvmlDeviceGetGpcClkMinMaxVfOffset
            nvmlDeviceGetGpcClkVfOffset nvmlDeviceGetMaxCustomerBoostClock nvmlDeviceGetMemClkMinMaxVfOffset
            nvmlDeviceGetMemClkVfOffset nvmlDeviceGetMinMaxClockOfPState nvmlDeviceGetPerformanceModes
            nvmlDeviceGetSupportedClocksEventReasons nvmlDeviceGetSupportedClocksThrottleReasons
            nvmlDeviceGetSupportedGraphicsClocks nvmlDeviceGetSupportedMemoryClocks nvmlDeviceGetSupportedPerformanceStates
            nvmlDeviceGetViolationStatus;
        NOT_SUPPORTED device "samples over time and counters of engines are not told":
            nvmlDeviceGetSamples nvmlDeviceGetJpgUtilization nvmlDeviceGetOfaUtilization nvmlDeviceGetEncoderCapacity
            nvmlDeviceGetEncoderSessions nvmlDeviceGetEncoderStats nvmlDeviceGetFBCSessions nvmlDeviceGetFBCStats
            nvmlGpmMigSampleGet nvmlGpmQueryDeviceSupport nvmlGpmQueryIfStreamingEnabled;
        NOT_SUPPORTED system "samples over time and counters of engines are not told":
            nvmlGpmMetricsGet nvmlGpmSampleAlloc nvmlGpmSampleFree nvmlGpmSampleGet;
        NOT_SUPPORTED device "the host's power profiles are not told":
            nvmlDeviceWorkloadPowerProfileGetCurrentProfiles nvmlDeviceWorkloadPowerProfileGetProfilesInfo;
        NO_PERMISSION device "the devices are the host's":
            nvmlDeviceClearFieldValues nvmlGpmSetStreamingEnabled nvmlDeviceResetApplicationsClocks
            nvmlDeviceResetGpuLockedClocks nvmlDeviceResetMemoryLockedClocks nvmlDeviceSetApplicationsClocks
            nvmlDeviceSetAutoBoostedClocksEnabled nvmlDeviceSetClockOffsets nvmlDeviceSetDefaultAutoBoostedClocksEnabled
            nvmlDeviceSetDefaultFanSpeed_v2 nvmlDeviceSetFanControlPolicy nvmlDeviceSetFanSpeed_v2 nvmlDeviceSetGpcClkVfOffset
            nvmlDeviceSetGpuLockedClocks nvmlDeviceSetMemClkVfOffset nvmlDeviceSetMemoryLockedClocks
            nvmlDeviceSetPowerManagementLimit nvmlDeviceSetPowerManagementLimit_v2 nvmlDeviceSetPowerMizerMode_v1
            nvmlDeviceSetTemperatureThreshold nvmlDevicePowerSmoothingActivatePresetProfile nvmlDevicePowerSmoothingSetState
            nvmlDevicePowerSmoothingUpdatePresetProfileParam nvmlDeviceWorkloadPowerProfileClearRequestedProfiles
            nvmlDeviceWorkloadPowerProfileSetRequestedProfiles;
    }
}

chapter! { running_processes
    answered {
        /// The VM's processes that have called cuInit, and what each has allocated.
        device nvmlDeviceGetComputeRunningProcesses_v3(count: *mut c_uint, to: *mut ProcessV2) = processes::compute;
        /// As nvmlDeviceGetComputeRunningProcesses_v3.
        device nvmlDeviceGetComputeRunningProcesses_v2(count: *mut c_uint, to: *mut ProcessV2) = processes::compute;
        /// As nvmlDeviceGetComputeRunningProcesses_v3, in the structure of its time.
        device nvmlDeviceGetComputeRunningProcesses(count: *mut c_uint, to: *mut ProcessV1) = processes::compute_v1;
        /// None: nothing draws.
        device nvmlDeviceGetGraphicsRunningProcesses_v3(count: *mut c_uint, to: *mut c_void) = processes::none;
        /// None: nothing draws.
        device nvmlDeviceGetGraphicsRunningProcesses_v2(count: *mut c_uint, to: *mut c_void) = processes::none;
        /// None: nothing draws.
        device nvmlDeviceGetGraphicsRunningProcesses(count: *mut c_uint, to: *mut c_void) = processes::none;
        /// None: the VM has no MPS.
        device nvmlDeviceGetMPSComputeRunningProcesses_v3(count: *mut c_uint, to: *mut c_void) = processes::none;
        /// None: the VM has no MPS.
        device nvmlDeviceGetMPSComputeRunningProcesses_v2(count: *mut c_uint, to: *mut c_void) = processes::none;
        /// None: the VM has no MPS.
        device nvmlDeviceGetMPSComputeRunningProcesses(count: *mut c_uint, to: *mut c_void) = processes::none;
    }
    refused {
        NOT_SUPPORTED device "the daemon does not tell how processes share the time of a device":
            nvmlDeviceGetRunningProcessDetailList nvmlDeviceGetProcessUtilization nvmlDeviceGetProcessesUtilizationInfo;
        NOT_SUPPORTED device "the host's accounting knows no processes of a VM":
            nvmlDeviceGetAccountingBufferSize nvmlDeviceGetAccountingMode nvmlDeviceGetAccountingPids
            nvmlDeviceGetAccountingStats;
        NO_PERMISSION device "the devices are the host's":
            nvmlDeviceClearAccountingPids nvmlDeviceSetAccountingMode;
    }
}

chapter! { modes_of_a_device
    answered {
        /// What cuDeviceGetAttribute says.
        device nvmlDeviceGetComputeMode(mode: *mut c_uint) = modes::compute_mode;
        /// On, where cuDeviceGetAttribute says so; else NOT_SUPPORTED.
        device nvmlDeviceGetEccMode(current: *mut c_uint, pending: *mut c_uint) = modes::ecc_mode;
        /// From the host.
        device nvmlDeviceGetPersistenceMode(mode: *mut c_uint) = load::persistence;
        /// Off: a VM cannot divide its devices.
        device nvmlDeviceGetMigMode(current: *mut c_uint, pending: *mut c_uint) = modes::mig_mode;
        /// No.
        device nvmlDeviceIsMigDeviceHandle(is: *mut c_uint) = modes::no;
        /// None.
        device nvmlDeviceGetMaxMigDeviceCount(count: *mut c_uint) = modes::no;
        /// There is none: NOT_FOUND.
        device nvmlDeviceGetMigDeviceHandleByIndex(index: c_uint, part: *mut Handle) = modes::no_part;
        /// Off: a VM shows nothing on the host's display.
        device nvmlDeviceGetDisplayMode(mode: *mut c_uint) = modes::no;
        /// Off: a VM shows nothing on the host's display.
        device nvmlDeviceGetDisplayActive(active: *mut c_uint) = modes::no;
        /// None.
        device nvmlDeviceGetSupportedEventTypes(types: *mut u64) = modes::no_events;
    }
    refused {
        NOT_SUPPORTED device "the daemon does not tell it":
            nvmlDeviceGetDefaultEccMode nvmlDeviceGetGpuOperationMode nvmlDeviceGetAPIRestriction;
        NOT_SUPPORTED device "the host tells of no events":
            nvmlDeviceRegisterEvents;
        NO_PERMISSION device "the devices are the host's":
            nvmlDeviceSetAPIRestriction nvmlDeviceSetComputeMode nvmlDeviceSetDriverModel nvmlDeviceSetEccMode
            nvmlDeviceSetGpuOperationMode nvmlDeviceSetHostname_v1 nvmlDeviceSetMigMode nvmlDeviceSetPersistenceMode
            nvmlDeviceSetVirtualizationMode nvmlDeviceCreateGpuInstance nvmlDeviceCreateGpuInstanceWithPlacement;
        NOT_SUPPORTED device "a VM cannot divide its devices":
            nvmlDeviceGetComputeInstanceId nvmlDeviceGetDeviceHandleFromMigDeviceHandle nvmlDeviceGetGpuInstanceById
            nvmlDeviceGetGpuInstanceId nvmlDeviceGetGpuInstancePossiblePlacements
            nvmlDeviceGetGpuInstancePossiblePlacements_v2 nvmlDeviceGetGpuInstanceProfileInfo
            nvmlDeviceGetGpuInstanceProfileInfoByIdV nvmlDeviceGetGpuInstanceProfileInfoV
            nvmlDeviceGetGpuInstanceRemainingCapacity nvmlDeviceGetGpuInstances;
        NOT_SUPPORTED system "a VM cannot divide its devices":
            nvmlComputeInstanceDestroy nvmlComputeInstanceGetInfo nvmlComputeInstanceGetInfo_v2
            nvmlGpuInstanceCreateComputeInstance nvmlGpuInstanceCreateComputeInstanceWithPlacement nvmlGpuInstanceDestroy
            nvmlGpuInstanceGetActiveVgpus nvmlGpuInstanceGetComputeInstanceById
            nvmlGpuInstanceGetComputeInstancePossiblePlacements nvmlGpuInstanceGetComputeInstanceProfileInfo
            nvmlGpuInstanceGetComputeInstanceProfileInfoV nvmlGpuInstanceGetComputeInstanceRemainingCapacity
            nvmlGpuInstanceGetComputeInstances nvmlGpuInstanceGetCreatableVgpus nvmlGpuInstanceGetInfo
            nvmlGpuInstanceGetVgpuHeterogeneousMode nvmlGpuInstanceGetVgpuSchedulerLog nvmlGpuInstanceGetVgpuSchedulerState
            nvmlGpuInstanceGetVgpuTypeCreatablePlacements nvmlGpuInstanceSetVgpuHeterogeneousMode
            nvmlGpuInstanceSetVgpuSchedulerState;
        NOT_SUPPORTED device "the devices are no vGPUs of NVIDIA's, and the VM hosts none":
            nvmlDeviceGetActiveVgpus nvmlDeviceGetCreatableVgpus nvmlDeviceGetGridLicensableFeatures
            nvmlDeviceGetGridLicensableFeatures_v2 nvmlDeviceGetGridLicensableFeatures_v3
            nvmlDeviceGetGridLicensableFeatures_v4 nvmlDeviceGetHostVgpuMode nvmlDeviceGetSupportedVgpus
            nvmlDeviceGetVgpuCapabilities nvmlDeviceGetVgpuHeterogeneousMode nvmlDeviceGetVgpuInstancesUtilizationInfo
            nvmlDeviceGetVgpuMetadata nvmlDeviceGetVgpuProcessesUtilizationInfo nvmlDeviceGetVgpuProcessUtilization
            nvmlDeviceGetVgpuSchedulerCapabilities nvmlDeviceGetVgpuSchedulerLog nvmlDeviceGetVgpuSchedulerState
            nvmlDeviceGetVgpuTypeCreatablePlacements nvmlDeviceGetVgpuTypeSupportedPlacements nvmlDeviceGetVgpuUtilization
            nvmlDeviceGetVirtualizationMode nvmlDeviceSetVgpuCapabilities nvmlDeviceSetVgpuHeterogeneousMode
            nvmlDeviceSetVgpuSchedulerState;
        NOT_SUPPORTED system "the devices are no vGPUs of NVIDIA's, and the VM hosts none":
            nvmlGetVgpuCompatibility nvmlGetVgpuDriverCapabilities nvmlGetVgpuVersion nvmlSetVgpuVersion
            nvmlVgpuInstanceClearAccountingPids nvmlVgpuInstanceGetAccountingMode nvmlVgpuInstanceGetAccountingPids
            nvmlVgpuInstanceGetAccountingStats nvmlVgpuInstanceGetEccMode nvmlVgpuInstanceGetEncoderCapacity
            nvmlVgpuInstanceGetEncoderSessions nvmlVgpuInstanceGetEncoderStats nvmlVgpuInstanceGetFBCSessions
            nvmlVgpuInstanceGetFBCStats nvmlVgpuInstanceGetFbUsage nvmlVgpuInstanceGetFrameRateLimit
            nvmlVgpuInstanceGetGpuInstanceId nvmlVgpuInstanceGetGpuPciId nvmlVgpuInstanceGetLicenseInfo
            nvmlVgpuInstanceGetLicenseInfo_v2 nvmlVgpuInstanceGetLicenseStatus nvmlVgpuInstanceGetMdevUUID
            nvmlVgpuInstanceGetMetadata nvmlVgpuInstanceGetPlacementId nvmlVgpuInstanceGetRuntimeStateSize
            nvmlVgpuInstanceGetType nvmlVgpuInstanceGetUUID nvmlVgpuInstanceGetVmDriverVersion nvmlVgpuInstanceGetVmID
            nvmlVgpuInstanceSetEncoderCapacity nvmlVgpuTypeGetBAR1Info nvmlVgpuTypeGetCapabilities nvmlVgpuTypeGetClass
            nvmlVgpuTypeGetDeviceID nvmlVgpuTypeGetFbReservation nvmlVgpuTypeGetFramebufferSize nvmlVgpuTypeGetFrameRateLimit
            nvmlVgpuTypeGetGpuInstanceProfileId nvmlVgpuTypeGetGspHeapSize nvmlVgpuTypeGetLicense nvmlVgpuTypeGetMaxInstances
            nvmlVgpuTypeGetMaxInstancesPerGpuInstance nvmlVgpuTypeGetMaxInstancesPerVm nvmlVgpuTypeGetName
            nvmlVgpuTypeGetNumDisplayHeads nvmlVgpuTypeGetResolution;
    }
}

/// The chapters in the table's order.
pub const CHAPTERS: &[(&str, &[Row])] = &[
    ("System", system_wide::ROWS),
    ("Devices", devices::ROWS),
    ("Memory", device_memory::ROWS),
    ("Links", links_between_devices::ROWS),
    ("Load", load_of_a_device::ROWS),
    ("Processes", running_processes::ROWS),
    ("Modes", modes_of_a_device::ROWS),
];

/// Every symbol.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    CHAPTERS.iter().flat_map(|(_, rows)| rows.iter())
}

/// The page docs/nvml.md.
pub fn page() -> String {
    let count = |refusal: Option<Return>| rows().filter(|row| row.refusal == refusal).count();
    let mut text = format!(
        "# NVML\n\nEvery symbol that `libnvidia-ml.so.1` exports: the names of driver 580, made from the table in `{TABLE}`.\n\
         Written by `cargo xtask calls --write`; a test compares. What is told and what is not: see the end.\n\n\
         {} symbols: {} answered, {} refused with `NVML_ERROR_NOT_SUPPORTED`, {} with `NVML_ERROR_NO_PERMISSION`.\n",
        rows().count(),
        count(None),
        count(Some(Return::NOT_SUPPORTED)),
        count(Some(Return::NO_PERMISSION)),
    );
    for (chapter, rows) in CHAPTERS {
        text += &format!("\n## {chapter}\n");
        let answered = rows.iter().filter(|row| row.refusal.is_none());
        let lines: Vec<String> =
            answered.map(|row| format!("| `{}` | {} |\n", row.name, row.words.trim())).collect();
        if !lines.is_empty() {
            text += &format!("\n| symbol | answers |\n|---|---|\n{}", lines.concat());
        }
        let mut groups: Vec<(Return, &str, Vec<String>)> = Vec::new();
        for row in rows.iter() {
            let Some(code) = row.refusal else { continue };
            let name = format!("`{}`", row.name);
            match groups.iter_mut().find(|(c, reason, _)| (*c, *reason) == (code, row.words)) {
                Some((_, _, names)) => names.push(name),
                None => groups.push((code, row.words, vec![name])),
            }
        }
        for (code, reason, names) in groups {
            let code = if code == Return::NO_PERMISSION { "Not permitted" } else { "Not supported" };
            text += &format!("\n{code} ({reason}): {}.\n", names.join(", "));
        }
    }
    text + NOTES
}

/// Where this file lies.
const TABLE: &str = "guest-driver/libnvidia-ml/src/table.rs";

/// What the page says after the table.
const NOTES: &str = include_str!("notes.md");
