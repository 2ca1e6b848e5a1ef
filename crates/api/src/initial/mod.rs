//! The first version of the API's types.

mod alert;
mod contents;
mod error;
mod isolation;
mod meter;
mod node;
mod operation;
mod requests;
mod sample;
mod session;
mod stats;
mod template;
mod update;
mod ve;
mod version;

pub use alert::{
    Alert, AlertChannel, AlertChannelKind, AlertChannelStatus, AlertMetric, AlertRule,
    AlertSecurity, AlertSeverity, AlertSilence, AlertSilenceRequest, AlertState,
};
pub use contents::{
    Change, ChangeKind, CompactReply, Difference, FileType, InstalledPackage, InventoryEntry,
    InventoryKind,
};
pub use error::{ApiError, ErrorCode};
pub use isolation::{Isolation, IsolationEntry, IsolationVerdict, IsolationWall};
pub use meter::{Account, History, HistoryPoint, HistorySeries};
pub use node::{
    Capacity, Diagnosis, DoctorReport, DoctorRow, InitReply, InitRequest, NodeStatus, Overcommit,
    PoolKind, PoolStatus, Reserve, Sold,
};
pub use operation::{Event, Operation, OperationState, Progress, Subject, SubjectKind};
pub use requests::{
    ApplicationsRequest, CreateRequest, DeleteRequest, DestroyRequest, NodeSetRequest, SetOutcome,
    SetReply, SetRequest, SettingChange, ShutdownRequest, StartRequest, StopRequest,
};
pub use sample::Sample;
pub use session::{ConsoleRequest, ExecRequest, FileKind, TerminalSize};
pub use stats::{Stats, Usage};
pub use template::{
    ApplicationSetting, BuildRequest, ImportRequest, Package, Template, TemplateDetails,
    TemplateKind,
};
pub use update::{UpdatePlan, UpdateReport, UpdateRequest, UpdateWay};
pub use ve::{Limits, Ve, VeDetails, VeState};
pub use version::{PackageChange, TemplateDifference, TemplateUpdateRequest};
