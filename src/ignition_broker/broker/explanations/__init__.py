"""Why a grant is as it is: judged by its row and the audit trail."""
