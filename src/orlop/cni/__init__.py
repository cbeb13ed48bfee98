"""`orlop-cni`: a CNI plugin by which others put their containers into orlop's networks."""
