//! What is tried again, what never is, and the budget.
