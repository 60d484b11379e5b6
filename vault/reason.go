package vault

// Reason is the stable name of why something was refused. Programs may match it.
type Reason string

// The reasons, by what they concern. A comment tells a person what to do.
const (
	// ReasonInvalidField: a request field is malformed. Mend the field that the error names.
	ReasonInvalidField Reason = "INVALID_FIELD"
	// ReasonInternal: the service failed. Its log has the cause.
	ReasonInternal Reason = "INTERNAL"
	// ReasonStoreUnavailable: the database did not answer. Try again.
	ReasonStoreUnavailable Reason = "STORE_UNAVAILABLE"
	// ReasonVaultUnavailable: HashiCorp Vault is sealed or away. Try again once it serves.
	ReasonVaultUnavailable Reason = "VAULT_UNAVAILABLE"
	// ReasonBlobUnavailable: the ciphertext store did not answer. Try again.
	ReasonBlobUnavailable Reason = "BLOB_UNAVAILABLE"
	// ReasonLogBehind: the log's tree does not keep up with the events, so nothing is released. Try again; if it stays so, look at the service's log.
	ReasonLogBehind Reason = "LOG_BEHIND"
	// ReasonLogRolledBack: the database's log is shorter than it was, or another. Restore the newest database.
	ReasonLogRolledBack Reason = "LOG_ROLLED_BACK"
	// ReasonOtherDatabase: HashiCorp Vault belongs to another database than the service's. Is store.path right? docs/operations.md says how to adopt a new one.
	ReasonOtherDatabase Reason = "OTHER_DATABASE"
	// ReasonVaultUnchecked: nobody has made sure lately that neither Vault nor the database was restored from a copy, so nothing is released. Try again; a process with the admin role must run.
	ReasonVaultUnchecked Reason = "VAULT_UNCHECKED"
	// ReasonReconciling: a reconcile is under way already. Try again once it is done.
	ReasonReconciling Reason = "RECONCILING"
	// ReasonShuttingDown: the daemon is stopping. Try again.
	ReasonShuttingDown Reason = "SHUTTING_DOWN"
	// ReasonServerBusy: the service, or the caller, is at its limit of calls under way. Try again in a moment.
	ReasonServerBusy Reason = "SERVER_BUSY"

	// ReasonNoLease: the node has lost touch with the others, so it releases nothing. Try again.
	ReasonNoLease Reason = "NO_LEASE"

	// ReasonNotOffered: the process that was asked has another role. Ask the one that has it.
	ReasonNotOffered Reason = "NOT_OFFERED"
	// ReasonRoleNotAllowed: this kind of caller may not call this method. Use the right certificate.
	ReasonRoleNotAllowed Reason = "ROLE_NOT_ALLOWED"
	// ReasonCallerSuspended: the caller's identity is suspended. Ask an admin.
	ReasonCallerSuspended Reason = "CALLER_SUSPENDED"
	// ReasonContractorUnknown: no contractor of this name is registered. Two admins apply one.
	ReasonContractorUnknown Reason = "CONTRACTOR_UNKNOWN"
	// ReasonContractorSuspended: the contractor was cut off. Reinstating takes two admins.
	ReasonContractorSuspended Reason = "CONTRACTOR_SUSPENDED"
	// ReasonSiteMismatch: a capture system stores for its own site and lane only.
	ReasonSiteMismatch Reason = "SITE_MISMATCH"

	// ReasonImageRejected: not a whole JPEG or PNG within the limits.
	ReasonImageRejected Reason = "IMAGE_REJECTED"
	// ReasonRequestIDReused: the device used this request_id for another image.
	ReasonRequestIDReused Reason = "REQUEST_ID_REUSED"
	// ReasonCapturedAtOutOfRange: captured_at is too far from the server's time. Set the device's clock.
	ReasonCapturedAtOutOfRange Reason = "CAPTURED_AT_OUT_OF_RANGE"
	// ReasonStoreOvertaken: storing took so long that its key was taken for an orphan. Store the image again.
	ReasonStoreOvertaken Reason = "STORE_OVERTAKEN"

	// ReasonPurposeUnknown: no purpose of this name is sanctioned.
	ReasonPurposeUnknown Reason = "PURPOSE_UNKNOWN"
	// ReasonPurposeWithdrawn: the purpose was withdrawn; nothing is granted or opened for it.
	ReasonPurposeWithdrawn Reason = "PURPOSE_WITHDRAWN"
	// ReasonPurposeChanged: the purpose has a newer version than the grant's terms name. Request anew.
	ReasonPurposeChanged Reason = "PURPOSE_CHANGED"
	// ReasonPurposeContractor: the purpose does not allow this contractor.
	ReasonPurposeContractor Reason = "PURPOSE_CONTRACTOR"
	// ReasonPurposeModality: the purpose does not allow this modality.
	ReasonPurposeModality Reason = "PURPOSE_MODALITY"
	// ReasonPurposeSite: the purpose does not allow this site.
	ReasonPurposeSite Reason = "PURPOSE_SITE"
	// ReasonPurposeDuration: longer than the purpose's max_ttl.
	ReasonPurposeDuration Reason = "PURPOSE_DURATION"
	// ReasonPurposeQuota: more records than the purpose's max_records.
	ReasonPurposeQuota Reason = "PURPOSE_QUOTA"
	// ReasonPurposeBytes: more bytes of images than the purpose's max_bytes.
	ReasonPurposeBytes Reason = "PURPOSE_BYTES"
	// ReasonPurposeAge: older records than the purpose's max_record_age.
	ReasonPurposeAge Reason = "PURPOSE_AGE"
	// ReasonPurposeWindow: the window does not begin and end on whole hours or days, as the purpose's time_precision wants.
	ReasonPurposeWindow Reason = "PURPOSE_WINDOW"
	// ReasonPurposeLive: records that are still to be captured, which the purpose does not allow.
	ReasonPurposeLive Reason = "PURPOSE_LIVE"
	// ReasonPurposeLinkage: faces and plates in one grant, of a purpose without linkage. Ask for one of them.
	ReasonPurposeLinkage Reason = "PURPOSE_LINKAGE"
	// ReasonPurposeClass: the list names a record of a retention class that the purpose may not see.
	ReasonPurposeClass Reason = "PURPOSE_CLASS"
	// ReasonPurposeApprover: the purpose names others as approvers of its grants.
	ReasonPurposeApprover Reason = "PURPOSE_APPROVER"
	// ReasonConflictRule: with what the contractor or its affiliates hold or have opened, both faces and plates of one site and day would come together.
	ReasonConflictRule Reason = "CONFLICT_RULE"
	// ReasonListUnknown: no such list of records, or not yours to know.
	ReasonListUnknown Reason = "LIST_UNKNOWN"

	// ReasonGrantUnknown: no such grant, or not yours to know.
	ReasonGrantUnknown Reason = "GRANT_UNKNOWN"
	// ReasonGrantPending: not approved yet.
	ReasonGrantPending Reason = "GRANT_PENDING"
	// ReasonGrantLapsed: the request was not approved in time. Request anew.
	ReasonGrantLapsed Reason = "GRANT_LAPSED"
	// ReasonGrantSuspended: the grant ended by itself, because its grantee went on after being refused for quota or rate. Request anew.
	ReasonGrantSuspended Reason = "GRANT_SUSPENDED"
	// ReasonGrantDecided: approvals are no longer taken: the grant is approved, denied or ended.
	ReasonGrantDecided Reason = "GRANT_DECIDED"
	// ReasonGrantNotActive: the grant was not activated.
	ReasonGrantNotActive Reason = "GRANT_NOT_ACTIVE"
	// ReasonGrantExpired: the grant's end has passed. Request a new one.
	ReasonGrantExpired Reason = "GRANT_EXPIRED"
	// ReasonGrantRevoked: an admin ended the grant, suspended its grantee or contractor, or withdrew its purpose.
	ReasonGrantRevoked Reason = "GRANT_REVOKED"
	// ReasonGrantRetired: its grantee ended the grant.
	ReasonGrantRetired Reason = "GRANT_RETIRED"
	// ReasonGrantDenied: an admin denied the request.
	ReasonGrantDenied Reason = "GRANT_DENIED"
	// ReasonGrantToken: the grant token is not the grant's newest. Activate again.
	ReasonGrantToken Reason = "GRANT_TOKEN"
	// ReasonGrantTampered: the stored grant is not what its approvers signed. Treat as an attack on the database.
	ReasonGrantTampered Reason = "GRANT_TAMPERED"
	// ReasonQuotaExceeded: the grant's quota of records is used up.
	ReasonQuotaExceeded Reason = "QUOTA_EXCEEDED"
	// ReasonBytesExceeded: the grant's quota of bytes does not allow this image.
	ReasonBytesExceeded Reason = "BYTES_EXCEEDED"
	// ReasonRateExceeded: more records than the purpose's max_rate in this minute, which began with a record. Wait as long as the error says.
	ReasonRateExceeded Reason = "RATE_EXCEEDED"
	// ReasonUsesSpent: the purpose is strict, and Vault has counted as many uses as the grant has records.
	ReasonUsesSpent Reason = "USES_SPENT"
	// ReasonBucketOpen: the record appears once its hour or day has closed. Try again then.
	ReasonBucketOpen Reason = "BUCKET_OPEN"
	// ReasonBucketSmall: too few crossings share the record's site and time for anybody to see them.
	ReasonBucketSmall Reason = "BUCKET_SMALL"
	// ReasonHandleUnknown: no record of this grant has that handle.
	ReasonHandleUnknown Reason = "HANDLE_UNKNOWN"
	// ReasonAccessEnded: access was ended while the image was on its way.
	ReasonAccessEnded Reason = "ACCESS_ENDED"

	// ReasonSignatureInvalid: a decision's signature does not verify, or its certificate is not an admin's.
	ReasonSignatureInvalid Reason = "SIGNATURE_INVALID"
	// ReasonSignatureStale: signed_at is too far from the server's time. Set the clock.
	ReasonSignatureStale Reason = "SIGNATURE_STALE"
	// ReasonSelfApproval: nobody approves their own request.
	ReasonSelfApproval Reason = "SELF_APPROVAL"
	// ReasonAlreadySigned: this person, or this key, has signed already. Another one must.
	ReasonAlreadySigned Reason = "ALREADY_SIGNED"
	// ReasonApprovalsMissing: not enough valid approvals by different people.
	ReasonApprovalsMissing Reason = "APPROVALS_MISSING"
	// ReasonDecisionUnknown: no such open decision.
	ReasonDecisionUnknown Reason = "DECISION_UNKNOWN"
	// ReasonDecisionExpired: the decision was not signed in time. Propose it again.
	ReasonDecisionExpired Reason = "DECISION_EXPIRED"
	// ReasonDecisionTampered: the stored decision is not what was signed.
	ReasonDecisionTampered Reason = "DECISION_TAMPERED"

	// ReasonDecisionOvertaken: what the decision is about changed since. Propose it again.
	ReasonDecisionOvertaken Reason = "DECISION_OVERTAKEN"
	// ReasonUnchanged: it is in force already, just so.
	ReasonUnchanged Reason = "UNCHANGED"

	// ReasonRecordUnknown: no such record.
	ReasonRecordUnknown Reason = "RECORD_UNKNOWN"
	// ReasonKeyRevoked: the record's key is revoked. Restoring takes two admins.
	ReasonKeyRevoked Reason = "KEY_REVOKED"
	// ReasonKeyDestroyed: the record's key is destroyed; nobody can open it.
	ReasonKeyDestroyed Reason = "KEY_DESTROYED"
	// ReasonDestructionPending: not all keys of the decision are destroyed yet. Try again later.
	ReasonDestructionPending Reason = "DESTRUCTION_PENDING"
	// ReasonKeyRefused: Vault refused the grant's token for this key.
	ReasonKeyRefused Reason = "KEY_REFUSED"
	// ReasonSelectionEmpty: no record matches the selection.
	ReasonSelectionEmpty Reason = "SELECTION_EMPTY"
	// ReasonSelectionTooLarge: more records than one operation takes. Narrow the selection.
	ReasonSelectionTooLarge Reason = "SELECTION_TOO_LARGE"
	// ReasonDataLoss: the stored image does not prove intact.
	ReasonDataLoss Reason = "DATA_LOSS"
)
