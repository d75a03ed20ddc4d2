"""From a request to an `EditPlan`, or to the reason why there is none. Changes nothing."""
