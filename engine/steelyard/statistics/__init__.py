"""Pure statistics: logistic regression with clustered covariance, means, drift, clusters."""
