"""What a schedule is and what it costs: the plan, the network, the simulation, the file."""

from skippipe.schedule.costs import Costs
from skippipe.schedule.network import Network
from skippipe.schedule.plan import Plan
from skippipe.schedule.schedule import Schedule

__all__ = ["Costs", "Network", "Plan", "Schedule"]
