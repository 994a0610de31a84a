//! Answers passed on as they come, with their own waits; interim answers; `Expect`.
